import type { Tensor } from '../../tensor/tensor.js';
import type { WireFormat } from './format.js';

/** Places of rows in memory, in units of four bytes: i32, one for each row. */
export type Places = Int32Array;

/** Places of `count` rows of `rowBytes` that lie one after the other from byte `start`. */
export function placesFrom(start: number, rowBytes: number, count: number): Places {
  const places = new Int32Array(count);
  for (let r = 0; r < count; r++) places[r] = (start + r * rowBytes) / 4;
  return places;
}

/** Rows on the wire that are added up for each of P outputs: those from `bounds[p]` to `bounds[p + 1]`, i32 [P+1]. */
export interface Summands {
  base: Uint8Array;
  format: WireFormat;
  bounds: Int32Array;
  places: Places;
}

/**
 * Coding fused with the copy: tokens to the wire, and sums of what comes back. Two implementations with the same
 * bytes: `reference.ts` and native/wire_ops.cc (`native.ts`). T tokens, D values of each; activations are f32 or bf16.
 */
export interface WireKernels {
  /** Rows of x [T, D] that `source` names (i32 [R]; all in order without) to their places. NaN and infinity arrive as NaN. */
  encode(
    x: Tensor,
    source: Int32Array | undefined,
    format: WireFormat,
    pow2: boolean,
    base: Uint8Array,
    places: Places,
  ): void;
  /** Rows at their places → out [R, D]. */
  decode(base: Uint8Array, places: Places, format: WireFormat, out: Tensor): void;
  /** out [P, D]: for each p the sum, in FP32, of the rows that the lists name, list by list. */
  sum(first: Summands, second: Summands | undefined, out: Tensor): void;
  /** The sums, D values `width` wide, of one list's rows, in FP32, to the wire at `places`, one for each p; scales as they are. */
  sumTo(list: Summands, width: number, format: WireFormat, base: Uint8Array, places: Places): void;
  /** Σ weights[j]·rows[members[j]] over bounds[p]..bounds[p+1] → the place of p, in the type of `rows` [R, D]; weights are 1 where absent. */
  partial(
    rows: Tensor,
    members: Int32Array,
    weights: Float32Array | undefined,
    bounds: Int32Array,
    base: Uint8Array,
    places: Places,
  ): void;
}
