import { UserError } from '../errors.js';
import { Random } from './random.js';
import type { Scheme } from './schemes.js';

/** Values to store in every format, as a matrix. */
export interface Sample {
  /** What they are: weights, activations, …; samples of one kind are reported together. */
  readonly kind: string;
  readonly name: string;
  /** [rows, cols] */
  readonly values: Float32Array;
  readonly cols: number;
}

/** What a format does to values x, which come back as q. */
export interface FormatError {
  format: string;
  /** Scales and tile headers included. */
  bitsPerValue: number;
  /** 10 log10(Σx² / Σ(q − x)²); null where nothing was lost. */
  sqnrDb: number | null;
  /** Largest |q − x| / |x| among the values that are not flushed to zero. */
  maxRelativeError: number;
  /** Σ(|q| − |x|) / Σ|x|: above 0 where magnitudes grow on average, below where they shrink. */
  bias: number;
  /** Share of the non-zero values that become zero. */
  flushed: number;
}

/** All formats on the samples of one kind. */
export interface KindReport {
  kind: string;
  tensors: number;
  values: number;
  formats: FormatError[];
}

/** Sums over the tensors that one format has seen. */
class Tally {
  private values = 0;
  private bits = 0;
  private nonZero = 0;
  private flushed = 0;
  private signal = 0;
  private noise = 0;
  private magnitude = 0;
  private growth = 0;
  private worst = 0;

  add(x: Float32Array, q: Float32Array, bits: number): void {
    this.values += x.length;
    this.bits += bits;
    for (let i = 0; i < x.length; i++) this.addValue(x[i]!, q[i]!);
  }

  private addValue(x: number, q: number): void {
    if (x === 0) return;
    const size = Math.abs(x);
    this.nonZero++;
    this.signal += x * x;
    this.noise += (q - x) ** 2;
    this.magnitude += size;
    this.growth += Math.abs(q) - size;
    if (q === 0) this.flushed++;
    else this.worst = Math.max(this.worst, Math.abs(q - x) / size);
  }

  report(format: string): FormatError {
    return {
      format,
      bitsPerValue: this.bits / this.values,
      sqnrDb: this.noise === 0 ? null : 10 * Math.log10(this.signal / this.noise),
      maxRelativeError: this.worst,
      bias: this.magnitude === 0 ? 0 : this.growth / this.magnitude,
      flushed: this.nonZero === 0 ? 0 : this.flushed / this.nonZero,
    };
  }
}

/**
 * Stores every sample in every scheme and reports, by kind, what was lost.
 * @param seed of stochastic rounding: every scheme and sample has a stream of its own
 * @param onSample called after each sample
 * @throws UserError where a sample holds NaN or infinity, or where a scheme's blocks do not divide its rows
 */
export function compareSchemes(
  samples: Iterable<Sample>,
  schemes: readonly Scheme[],
  seed: number,
  onSample: () => void = () => {},
): KindReport[] {
  const kinds = new Map<string, { tensors: number; values: number; tallies: Tally[] }>();
  for (const sample of samples) {
    checkFinite(sample);
    const kind = kinds.get(sample.kind) ?? { tensors: 0, values: 0, tallies: schemes.map(() => new Tally()) };
    kinds.set(sample.kind, kind);
    kind.tensors++;
    kind.values += sample.values.length;
    schemes.forEach((scheme, i) => {
      tallySample(sample, scheme, seed, kind.tallies[i]!);
    });
    onSample();
  }
  return [...kinds].map(([kind, { tensors, values, tallies }]) => {
    const formats = tallies.map((tally, i) => tally.report(schemes[i]!.name));
    return { kind, tensors, values, formats };
  });
}

function tallySample(sample: Sample, scheme: Scheme, seed: number, tally: Tally): void {
  const { name, values, cols } = sample;
  checkDivides(sample, scheme);
  const random = Random.stream(seed, 'compare', scheme.name, name);
  tally.add(values, scheme.roundTrip(values, cols, random), scheme.bits(values.length / cols, cols));
}

function checkFinite({ name, values, cols }: Sample): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  const [row, column] = [Math.floor(bad / cols), bad % cols];
  throw new UserError(
    `tensor ${name} holds ${values[bad]} at row ${row}, column ${column}; only finite values can be compared`,
  );
}

function checkDivides({ name, cols }: Sample, { name: format, block, wholeBlocks }: Scheme): void {
  if (!wholeBlocks || cols % block.cols === 0 || block.cols === Number.POSITIVE_INFINITY) return;
  throw new UserError(
    `tensor ${name} has rows of ${cols} values, which blocks of ${block.cols} (${format}) do not divide; ` +
      'choose another format or block size',
  );
}

/** Rows and columns of a synthetic sample: a thousand tokens of a small model. */
const SYNTHETIC = { rows: 1024, cols: 1024 } as const;

/** A normal distribution, and Student's t with two degrees of freedom, whose tails have no variance. */
export function* syntheticSamples(sigma: number, seed: number): Generator<Sample> {
  const random = Random.stream(seed, 'synthetic');
  const length = SYNTHETIC.rows * SYNTHETIC.cols;
  const normal = Float32Array.from({ length }, () => sigma * random.normal());
  yield { kind: 'gaussian', name: `gaussian, sigma ${sigma}`, values: normal, cols: SYNTHETIC.cols };
  // t_2 = N / sqrt(χ²_2 / 2), and χ²_2 / 2 is exponential.
  const heavy = Float32Array.from(
    { length },
    () => (sigma * random.normal()) / Math.sqrt(-Math.log(1 - random.uniform())),
  );
  yield { kind: 'heavy tails', name: `Student t, scale ${sigma}`, values: heavy, cols: SYNTHETIC.cols };
}
