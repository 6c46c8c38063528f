import { encodeBf16Array } from '../../src/numerics/bf16.js';
import { Random } from '../../src/numerics/random.js';
import { type DType, elementCount, Tensor } from '../../src/tensor/tensor.js';

/** Seeded test tensors. */
export class Data {
  private readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  /** Standard normal values times `spread`. */
  normal(shape: readonly number[], dtype: DType = 'f32', spread = 1): Tensor {
    return this.from(shape, dtype, () => spread * this.random.normal());
  }

  /** Normal values of which 2 % are 50 times as large and 5 % are zero: what tile scales must cope with. */
  rough(shape: readonly number[], dtype: DType = 'f32', spread = 1): Tensor {
    return this.from(shape, dtype, () => {
      const u = this.random.uniform();
      return u < 0.05 ? 0 : spread * this.random.normal() * (u > 0.98 ? 50 : 1);
    });
  }

  /** Uniform values in [low, high). */
  uniform(shape: readonly number[], low: number, high: number, dtype: DType = 'f32'): Tensor {
    return this.from(shape, dtype, () => low + (high - low) * this.random.uniform());
  }

  /** Uniform integers below `n`. */
  integers(shape: readonly number[], n: number): Tensor {
    return new Tensor(
      shape,
      'i32',
      Int32Array.from({ length: elementCount(shape) }, () => this.random.below(n)),
    );
  }

  /** K distinct integers below `n` per row: i32 [rows, k]. */
  choices(rows: number, k: number, n: number): Tensor {
    const all = Array.from({ length: n }, (_, i) => i);
    const picks = Array.from({ length: rows }, () => this.random.shuffle(all.slice()).slice(0, k));
    return new Tensor([rows, k], 'i32', Int32Array.from(picks.flat()));
  }

  private from(shape: readonly number[], dtype: DType, draw: () => number): Tensor {
    const values = Float64Array.from({ length: elementCount(shape) }, draw);
    if (dtype === 'f64') return new Tensor(shape, dtype, values);
    if (dtype === 'bf16') return new Tensor(shape, dtype, encodeBf16Array(values));
    return Tensor.f32(shape, values);
  }
}

/** Rotation table [positions, rope/2, 2] of (cos, sin) with the usual frequencies 10000^(−2i/rope). */
export function ropeTable(positions: number, rope: number, dtype: DType = 'f32'): Tensor {
  const table = Tensor.zeros([positions, rope / 2, 2], dtype);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < rope / 2; i++) {
      const angle = p * 10000 ** ((-2 * i) / rope);
      table.data[p * rope + 2 * i] = Math.cos(angle);
      table.data[p * rope + 2 * i + 1] = Math.sin(angle);
    }
  }
  return table;
}
