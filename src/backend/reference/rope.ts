import type { RopeLayout } from '../../tensor/backend.js';
import type { Tensor } from '../../tensor/tensor.js';
import { commit, integers, read } from './values.js';

/**
 * Rotary position embedding in place [arXiv 2104.09864]: pair i of a slice at position p turns by the angle whose
 * (cos, sin) is table[p, i]: (a, b) → (a·cos − b·sin, a·sin + b·cos), or by its negative for `inverse`, which is the
 * transpose and so the backward pass. x [T, W], table [positions, rope/2, 2], positions i32 [T].
 */
export function rope(
  x: Tensor,
  table: Tensor,
  positions: Tensor,
  layout: RopeLayout,
  inverse: boolean,
): void {
  const values = read(x);
  const angles = read(table);
  const place = integers(positions);
  for (let t = 0; t < x.rows; t++) {
    for (let head = 0; head < layout.heads; head++) {
      const slice = t * x.cols + layout.offset + head * layout.stride;
      rotate(values, slice, angles, place[t]! * layout.rope, layout, inverse ? -1 : 1);
    }
  }
  commit(x, values);
}

/** Turns one slice of `rope` values from `start`; `row` is where its position's angles begin. */
function rotate(
  values: Float32Array | Float64Array,
  start: number,
  angles: Float32Array | Float64Array,
  row: number,
  { rope: width, interleaved }: RopeLayout,
  direction: 1 | -1,
): void {
  const step = interleaved ? 2 : 1;
  const apart = interleaved ? 1 : width / 2;
  for (let i = 0; i < width / 2; i++) {
    const cos = angles[row + 2 * i]!;
    const sin = direction * angles[row + 2 * i + 1]!;
    const first = start + i * step;
    const a = values[first]!;
    const b = values[first + apart]!;
    values[first] = a * cos - b * sin;
    values[first + apart] = a * sin + b * cos;
  }
}
