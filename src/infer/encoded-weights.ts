import { FP8_PARTS, listParameters, type ParameterSpec } from '../model/parameters.js';
import type { ModelConfig } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import type { StoredWeight, WeightPiece } from '../tensor/inference.js';
import { elementCount, Tensor } from '../tensor/tensor.js';
import type { WeightSource } from './stored-model.js';

/** Weights brought into a format once, from parameters whose values can be read as f32. */
export abstract class EncodedWeights implements WeightSource {
  private readonly specs: ReadonlyMap<string, ParameterSpec>;

  constructor(
    readonly config: ModelConfig,
    protected readonly backend: Backend,
    readonly format: WeightFormat,
  ) {
    this.specs = new Map(listParameters(config).map((spec) => [spec.name, spec]));
  }

  abstract has(name: string): boolean;

  /** f32 of `count` elements of a parameter from element `begin` on. */
  protected abstract values(name: string, begin: number, count: number): Float32Array;

  matrix(...names: string[]): StoredWeight {
    const format = this.formatOf(names[0]!);
    const pieces = names.flatMap((name) => this.pieces(name, format, 0, this.rows(name)));
    return this.backend.storeWeight(format, this.columns(names[0]!), [pieces]);
  }

  groups(
    name: string,
    which?: ArrayLike<number>,
    held?: ReadonlyMap<number, readonly WeightPiece[]>,
  ): StoredWeight {
    const groups = this.spec(name).shape[0]!;
    const each = this.rows(name) / groups;
    const format = this.formatOf(name);
    const cut = (g: number) => held?.get(g) ?? this.pieces(name, format, g * each, each);
    return this.backend.storeWeight(
      format,
      this.columns(name),
      Array.from(which ?? { length: groups }, (chosen: number | undefined, g) => cut(chosen ?? g)),
    );
  }

  slices(name: string, groups: number, from: number, count: number): StoredWeight {
    const format = this.formatOf(name);
    const each = this.rows(name) / groups;
    const cut = (_: unknown, g: number) => this.pieces(name, format, g * each + from, count);
    return this.backend.storeWeight(format, this.columns(name), Array.from({ length: groups }, cut));
  }

  turnedSlices(name: string, groups: number, from: number, count: number): StoredWeight {
    const format = turnedFormat(this.formatOf(name));
    const k = this.columns(name);
    const rows = this.rows(name);
    const values = this.values(name, 0, rows * k);
    const cut = (_: unknown, g: number) => {
      const start = ((g * rows) / groups + from) * k;
      return [this.backend.encodeWeight(format, turn(values.subarray(start, start + count * k), k), count)];
    };
    return this.backend.storeWeight(format, count, Array.from({ length: groups }, cut));
  }

  vector(name: string): Tensor {
    const size = elementCount(this.spec(name).shape);
    return Tensor.f32([size], this.values(name, 0, size));
  }

  /** Rows `from`..`from + count` of a parameter. */
  protected pieces(name: string, format: WeightFormat, from: number, count: number): WeightPiece[] {
    const k = this.columns(name);
    return [this.backend.encodeWeight(format, this.values(name, from * k, count * k), k)];
  }

  protected spec(name: string): ParameterSpec {
    const spec = this.specs.get(name);
    if (!spec) throw new Error(`the model has no parameter ${name}`);
    return spec;
  }

  /** Width of a parameter, flattened to [rows, columns]. */
  protected columns(name: string): number {
    return this.spec(name).shape.at(-1)!;
  }

  private rows(name: string): number {
    return elementCount(this.spec(name).shape) / this.columns(name);
  }

  /**
   * Gates decide: they stay in BF16 at least, and so does with FP8 what DeepSeek publishes in BF16 beside it [TR §3.3.1].
   */
  private formatOf(name: string): WeightFormat {
    if (this.format === 'fp32') return 'fp32';
    const { part } = this.spec(name);
    const wide = part === 'gate' || (this.format === 'fp8' && !FP8_PARTS.has(part));
    return wide ? 'bf16' : this.format;
  }
}

/**
 * Format of W^UK turned. Scales that run along its rows cannot be taken over, so that it is encoded anew: in 8 bits where
 * weights have fewer, which is little, and in BF16 where they have FP8 blocks.
 */
export const turnedFormat = (format: WeightFormat): WeightFormat =>
  format === 'q4' ? 'int8' : format === 'fp8' ? 'bf16' : format;

/** [rows, k] → [k, rows]. */
function turn(values: Float32Array, k: number): Float32Array {
  const rows = values.length / k;
  const turned = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < k; column++) turned[column * rows + row] = values[row * k + column]!;
  }
  return turned;
}
