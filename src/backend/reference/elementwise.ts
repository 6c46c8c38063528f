import { encodeBf16 } from '../../numerics/bf16.js';
import type { Tensor } from '../../tensor/tensor.js';
import { commit, read, target } from './values.js';

/** out = a + b. */
export function add(a: Tensor, b: Tensor, out: Tensor): void {
  const left = read(a);
  const right = read(b);
  const sum = target(out);
  for (let i = 0; i < sum.length; i++) sum[i] = left[i]! + right[i]!;
  commit(out, sum);
}

/** out = x in out's type. */
export function cast(x: Tensor, out: Tensor): void {
  if (x.dtype === out.dtype) {
    out.data.set(x.data);
    return;
  }
  const values = target(out);
  values.set(read(x));
  commit(out, values);
}

/** x = value everywhere. */
export function fill(x: Tensor, value: number): void {
  x.data.fill(x.dtype === 'bf16' ? encodeBf16(value) : value);
}

/** out[t, :] = x[t, column .. column + w) for x [T, W], out [T, w]. */
export function copyColumnsOut(x: Tensor, column: number, out: Tensor): void {
  sameType(x, out);
  for (let t = 0; t < out.rows; t++) {
    const from = t * x.cols + column;
    out.data.set(x.data.subarray(from, from + out.cols), t * out.cols);
  }
}

/** out[t, column .. column + w) = x[t, :] for x [T, w], out [T, W]. */
export function copyColumnsIn(x: Tensor, out: Tensor, column: number): void {
  sameType(x, out);
  for (let t = 0; t < x.rows; t++) {
    out.data.set(x.data.subarray(t * x.cols, (t + 1) * x.cols), t * out.cols + column);
  }
}

/** Copies move bits and do not convert. */
export function sameType(x: Tensor, out: Tensor): void {
  if (x.dtype !== out.dtype) throw new Error(`cannot copy ${x.dtype} to ${out.dtype}`);
}

/** h = silu(g) · u with silu(z) = z·σ(z), for gu = [g | u] [R, 2I] → h [R, I] [arXiv 2002.05202]. */
export function swiglu(gu: Tensor, h: Tensor): void {
  const x = read(gu);
  const y = target(h);
  const inner = h.cols; // I
  for (let r = 0; r < h.rows; r++) {
    const gate = r * 2 * inner;
    for (let i = 0; i < inner; i++) {
      const g = x[gate + i]!;
      y[r * inner + i] = g * sigmoid(g) * x[gate + inner + i]!;
    }
  }
  commit(h, y);
}

/** dg = dh·u·σ(g)·(1 + g·(1 − σ(g))), du = dh·silu(g); dgu = [dg | du] [R, 2I]. */
export function swigluBackward(dh: Tensor, gu: Tensor, dgu: Tensor): void {
  const dy = read(dh);
  const x = read(gu);
  const dx = target(dgu);
  const inner = dh.cols; // I
  for (let r = 0; r < dh.rows; r++) {
    const gate = r * 2 * inner;
    for (let i = 0; i < inner; i++) {
      const d = dy[r * inner + i]!;
      const g = x[gate + i]!;
      const s = sigmoid(g);
      dx[gate + i] = d * x[gate + inner + i]! * s * (1 + g * (1 - s));
      dx[gate + inner + i] = d * g * s;
    }
  }
  commit(dgu, dx);
}

/** σ(z) = 1 / (1 + e^−z). */
export const sigmoid = (z: number): number => 1 / (1 + Math.exp(-z));
