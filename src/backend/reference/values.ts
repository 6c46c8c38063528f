import { decodeBf16Array, encodeBf16Array } from '../../numerics/bf16.js';
import type { Tensor } from '../../tensor/tensor.js';

/**
 * How the reference backend sees numbers: f32 and f64 tensors as they are, bf16 tensors through an f32 copy.
 * Arithmetic is in doubles; a result is rounded once, when it is stored.
 */
export type Values = Float32Array | Float64Array;

/** The elements of an f64, f32 or bf16 tensor as numbers; its own memory unless it is bf16. */
export function read(t: Tensor): Values {
  if (t.dtype === 'f64' || t.dtype === 'f32') return t.data as Values;
  if (t.dtype === 'bf16') return decodeBf16Array(t.data as Uint16Array);
  throw new Error(`expected an f64, f32 or bf16 tensor, got ${t.dtype} of shape [${t.shape}]`);
}

/** Where to put the results for `t`, to be followed by `commit`; its own memory unless it is bf16. */
export const target = (t: Tensor): Values => (t.dtype === 'bf16' ? new Float32Array(t.size) : read(t));

/** Stores what was put into `target(t)` or changed in `read(t)`. */
export function commit(t: Tensor, values: Values): void {
  if (t.dtype === 'bf16') encodeBf16Array(values, t.data as Uint16Array);
}

/** The elements of an i32 tensor. */
export function integers(t: Tensor): Int32Array {
  if (t.dtype === 'i32') return t.data as Int32Array;
  throw new Error(`expected an i32 tensor, got ${t.dtype} of shape [${t.shape}]`);
}

/** Rounds to the precision of `t`: to FP32 unless `t` is f64. */
export const rounding = (t: Tensor): ((x: number) => number) => (t.dtype === 'f64' ? (x) => x : Math.fround);

/** Σ a[aStart + i] · b[bStart + i] over `count` elements. */
export function dot(a: Values, aStart: number, b: Values, bStart: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[aStart + i]! * b[bStart + i]!;
  return sum;
}

/** y[yStart + i] += factor · x[xStart + i] over `count` elements. */
export function addScaled(
  y: Values,
  yStart: number,
  factor: number,
  x: Values,
  xStart: number,
  count: number,
): void {
  for (let i = 0; i < count; i++) y[yStart + i]! += factor * x[xStart + i]!;
}
