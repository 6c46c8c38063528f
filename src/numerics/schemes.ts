import { UsageError } from '../errors.js';
import { NUMBER_FORMATS } from './formats.js';
import {
  checkLogFmtBits,
  LOGFMT_TILE,
  type LogFmtCodec,
  type LogFmtRounding,
  logFmtBytes,
  referenceLogFmt,
} from './logfmt.js';
import type { Random } from './random.js';
import { nearestEven, type Rounding, stochastic, truncate } from './rounding.js';
import {
  BLOCK_FORMATS,
  BLOCKS,
  dequantizeMatrix,
  quantizeMatrix,
  type ScaledFormat,
  type ScaleRule,
  scaledBits,
} from './scaled.js';
import type { BlockSize } from './tiles.js';

/**
 * Ways to store a matrix, by name: FORMAT[@BLOCKS][+OPTION…].
 *
 *   e4m3                  one FP32 scale per 1×128 tile, to nearest even
 *   e4m3@block+pow2       per 128×128 block, scales rounded up to powers of two
 *   e5m2@tensor, int8@row, e4m3@tile64, fp16@none   (a size that is given must divide the rows)
 *   e4m3+truncate, e4m3+stochastic
 *   mxfp8, mxfp4, nvfp4   blocks and scales as their specifications say
 *   logfmt8, logfmt10     n = 4..16; +log rounds in logarithm
 *   bf16, fp16            without scales, unless asked for
 */
export interface Scheme {
  readonly name: string;
  /** Values that share a scale or a range. */
  readonly block: BlockSize;
  /** Whether rows must be whole blocks; otherwise the last block of a row may be shorter. */
  readonly wholeBlocks: boolean;
  /** Bits of a [rows, cols] matrix with all its scales. */
  bits(rows: number, cols: number): number;
  /** values [rows, cols] stored and read back. @param random for stochastic rounding */
  roundTrip(values: Float32Array, cols: number, random: Random): Float32Array;
}

const ELEMENT_FORMATS = ['bf16', 'fp16', 'e5m6', 'e4m3', 'e5m2', 'e3m2', 'e2m3', 'e2m1', 'int8'] as const;
type ElementFormat = (typeof ELEMENT_FORMATS)[number];

/** What an error lists. */
export const KNOWN_SCHEMES: readonly string[] = [
  ...ELEMENT_FORMATS,
  ...Object.keys(BLOCK_FORMATS),
  'logfmt4 … logfmt16',
];

/**
 * @param codec for LogFMT; the native one gives the same bits
 * @throws UsageError for a name that means nothing; it lists what there is
 */
export function parseScheme(name: string, codec: LogFmtCodec = referenceLogFmt): Scheme {
  const match = /^([a-z0-9-]+)(?:@([a-z]+)(\d*))?((?:\+[a-z0-9]+)*)$/.exec(name);
  if (!match) throw unknown(name);
  const [, base, blocks, size, options] = match;
  const wanted: Wanted = { name, blocks, size: size ? Number(size) : undefined, options: split(options!) };
  const logfmt = /^logfmt(\d+)$/.exec(base!);
  if (logfmt) return logFmtScheme(Number(logfmt[1]), wanted, codec);
  if (Object.hasOwn(BLOCK_FORMATS, base!)) {
    return blockScheme(BLOCK_FORMATS[base as keyof typeof BLOCK_FORMATS], wanted);
  }
  if (!(ELEMENT_FORMATS as readonly string[]).includes(base!)) throw unknown(name);
  return elementScheme(base as ElementFormat, wanted);
}

/** What a name asks for beside its format. */
interface Wanted {
  name: string;
  blocks: string | undefined;
  size: number | undefined;
  options: string[];
}

const split = (options: string): string[] => options.split('+').slice(1);

const unknown = (name: string): UsageError =>
  new UsageError(`unknown number format ${JSON.stringify(name)}; known are ${KNOWN_SCHEMES.join(', ')}`);

/** Takes the options that are allowed out of `options`. @throws UsageError for any other */
function takeOptions({ name, options }: Wanted, allowed: readonly string[]): string[] {
  const wrong = options.find((option) => !allowed.includes(option));
  if (wrong === undefined) return options;
  throw new UsageError(`number format ${name} has no option "${wrong}"; it takes ${allowed.join(', ')}`);
}

function refuseBlocks({ name, blocks }: Wanted, why: string): void {
  if (blocks !== undefined) throw new UsageError(`number format ${name}: ${why}; leave out @${blocks}`);
}

// ---- LogFMT ---------------------------------------------------------------------------------------------------

function logFmtScheme(bits: number, wanted: Wanted, codec: LogFmtCodec): Scheme {
  checkLogFmtBits(bits);
  refuseBlocks(wanted, 'the tiles of LogFMT are 1x128');
  const rounding: LogFmtRounding = takeOptions(wanted, ['log']).length > 0 ? 'log' : 'linear';
  return {
    name: wanted.name,
    block: BLOCKS.tile(LOGFMT_TILE),
    wholeBlocks: false,
    bits: (rows, cols) => 8 * logFmtBytes(rows, cols, bits),
    roundTrip: (values, cols) =>
      codec.decode(codec.encode(values, cols, bits, rounding), cols, bits, new Float32Array(values.length)),
  };
}

// ---- One code per element, one scale per block ------------------------------------------------------------------

const ROUNDINGS: Record<string, (random: Random) => Rounding> = {
  truncate: () => truncate,
  stochastic,
};

function blockScheme(scaled: ScaledFormat, wanted: Wanted): Scheme {
  refuseBlocks(wanted, 'its specification fixes its blocks');
  return scaledScheme(scaled, wanted, true, takeOptions(wanted, Object.keys(ROUNDINGS)));
}

function elementScheme(format: ElementFormat, wanted: Wanted): Scheme {
  const options = takeOptions(wanted, ['pow2', ...Object.keys(ROUNDINGS)]);
  const wide = format === 'bf16' || format === 'fp16';
  const block = blockSize(wanted, wide ? 'none' : 'tile');
  if (format === 'bf16' && block) refuseBlocks(wanted, 'BF16 has the range of FP32 and takes no scales');
  const rule: ScaleRule = block === undefined ? 'none' : options.includes('pow2') ? 'pow2' : 'fp32';
  const scaling = { block: block ?? BLOCKS.tensor(), rule };
  return scaledScheme(
    { format: NUMBER_FORMATS[format], scaling },
    wanted,
    wanted.size !== undefined,
    options,
  );
}

/** Undefined for no scales at all. */
function blockSize({ name, blocks, size }: Wanted, fallback: string): BlockSize | undefined {
  const kind = blocks ?? fallback;
  const takesSize = kind === 'tile' || kind === 'block';
  if ((size !== undefined && !takesSize) || size === 0 || !(kind === 'none' || Object.hasOwn(BLOCKS, kind))) {
    throw new UsageError(
      `number format ${name} has unknown blocks; use @none, @tensor, @row, @tileN or @blockN with N = 1, 2, …`,
    );
  }
  return kind === 'none' ? undefined : BLOCKS[kind as keyof typeof BLOCKS](size ?? 128);
}

function scaledScheme(
  scaled: ScaledFormat,
  { name }: Wanted,
  wholeBlocks: boolean,
  options: string[],
): Scheme {
  const rounding = options.map((option) => ROUNDINGS[option]).find((found) => found !== undefined);
  return {
    name,
    block: scaled.scaling.block,
    wholeBlocks,
    bits: (rows, cols) => scaledBits(rows, cols, scaled),
    roundTrip: (values, cols, random) =>
      dequantizeMatrix(quantizeMatrix(values, cols, scaled, rounding?.(random) ?? nearestEven)),
  };
}
