import { codeBytes } from '../backend/stored.js';
import { listParameters, type ParameterSpec } from '../model/parameters.js';
import type { Transformer } from '../model/transformer.js';
import { encodeBf16Array } from '../numerics/bf16.js';
import { E4M3 } from '../numerics/minifloat.js';
import { quantizeBlocks } from '../numerics/tiles.js';
import { encodeInt8, encodeQ4 } from '../numerics/weights.js';
import type { ModelConfig } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import type { StoredWeight, WeightPiece } from '../tensor/inference.js';
import { Tensor } from '../tensor/tensor.js';
import type { WeightSource } from './stored-model.js';

/** Weights whose FP32 values are in memory, or can be read into it, encoded once. */
export class MemoryWeights implements WeightSource {
  private readonly specs: ReadonlyMap<string, ParameterSpec>;

  constructor(
    readonly config: ModelConfig,
    private readonly backend: Backend,
    readonly format: WeightFormat,
    /** f32 values of a parameter, undefined where the model lacks it. */
    private readonly valuesOf: (name: string) => Float32Array | undefined,
  ) {
    this.specs = new Map(listParameters(config).map((spec) => [spec.name, spec]));
  }

  matrix(...names: string[]): StoredWeight {
    const format = names[0]!.endsWith('.gate.weight') ? this.wide() : this.format;
    const pieces = names.map((name) => encode(format, this.values(name), this.columns(name)));
    return this.backend.storeWeight(format, this.columns(names[0]!), [pieces]);
  }

  groups(name: string): StoredWeight {
    const k = this.columns(name);
    return this.backend.storeWeight(
      this.format,
      k,
      this.parts(name, this.shape(name)[0]!, (part) => part),
    );
  }

  slices(name: string, groups: number, from: number, count: number): StoredWeight {
    const k = this.columns(name);
    const cut = (part: Float32Array) => part.subarray(from * k, (from + count) * k);
    return this.backend.storeWeight(this.format, k, this.parts(name, groups, cut));
  }

  turnedSlices(name: string, groups: number, from: number, count: number): StoredWeight {
    const k = this.columns(name);
    const format = turnedFormat(this.format);
    const values = this.values(name);
    const rows = values.length / k / groups;
    const pieces = Array.from({ length: groups }, (_, g) => {
      const start = (g * rows + from) * k;
      return [encode(format, turn(values.subarray(start, start + count * k), k), count)];
    });
    return this.backend.storeWeight(format, count, pieces);
  }

  vector(name: string): Tensor {
    return Tensor.f32([this.values(name).length], this.values(name));
  }

  has(name: string): boolean {
    return this.valuesOf(name) !== undefined;
  }

  /** Equal parts of a parameter, cut and encoded. */
  private parts(name: string, groups: number, cut: (part: Float32Array) => Float32Array): WeightPiece[][] {
    const values = this.values(name);
    const size = values.length / groups;
    return Array.from({ length: groups }, (_, g) => {
      const part = cut(values.subarray(g * size, (g + 1) * size));
      return [encode(this.format, part, this.columns(name))];
    });
  }

  /** The gate decides: it stays in BF16 at least [TR §3.3.1]. */
  private wide(): WeightFormat {
    return this.format === 'fp32' ? 'fp32' : 'bf16';
  }

  private values(name: string): Float32Array {
    const values = this.valuesOf(name);
    if (!values) throw new Error(`the model has no parameter ${name}`);
    return values;
  }

  private shape(name: string): readonly number[] {
    return this.specs.get(name)!.shape;
  }

  private columns(name: string): number {
    return this.shape(name).at(-1)!;
  }
}

/** The weights of a model that is being trained, or was initialised. */
export function transformerWeights(model: Transformer, format: WeightFormat): MemoryWeights {
  const bias = /^model\.layers\.(\d+)\.mlp\.gate\.e_score_correction_bias$/;
  return new MemoryWeights(model.config, model.backend, format, (name) => {
    const router = bias.exec(name);
    const tensor = router ? model.routers.get(Number(router[1]))?.bias : model.parameters.get(name)?.value;
    return tensor?.data as Float32Array | undefined;
  });
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
  return Float32Array.from(values, (_, i) => values[(i % rows) * k + Math.floor(i / rows)]!);
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Uint16Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** values [rows, k] in a format. */
function encode(format: WeightFormat, values: Float32Array, k: number): WeightPiece {
  const rows = values.length / k;
  const tiles = Math.ceil(k / 128);
  if (format === 'fp32') return { rows, first: 0, codes: bytesOf(values) };
  if (format === 'bf16') return { rows, first: 0, codes: bytesOf(encodeBf16Array(values)) };
  const codes = new Uint8Array(codeBytes(format, rows, k));
  if (format === 'q4') encodeQ4(values, k, codes);
  if (format === 'q4') return { rows, first: 0, codes };
  const scales = new Float32Array((format === 'fp8' ? Math.ceil(rows / 128) : rows) * tiles);
  if (format === 'fp8') quantizeBlocks(values, k, 128, E4M3, 'fp32', codes, scales);
  else encodeInt8(values, k, codes, scales);
  return { rows, first: 0, codes, scales: bytesOf(scales) };
}
