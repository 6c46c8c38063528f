import { type Batch, countTargets } from '../model/transformer.js';
import { Tensor } from '../tensor/tensor.js';

/** One of `of` equal parts of every batch: consecutive sequences. */
export interface Part {
  index: number;
  of: number;
}

export const WHOLE: Part = { index: 0, of: 1 };

/** One part of a batch, whose number of sequences `part.of` divides, with the number of targets of the whole. */
export function partOf(batch: Batch, part: Part): Batch {
  const rows = (batch.sequences.size - 1) / part.of;
  const from = batch.sequences.data[part.index * rows]!;
  const to = batch.sequences.data[(part.index + 1) * rows]!;
  const tokens = (t: Tensor) => Tensor.i32((t.data as Int32Array).slice(from, to));
  const bounds = (t: Tensor) =>
    Tensor.i32((t.data as Int32Array).filter((b) => b >= from && b <= to).map((b) => b - from));
  return {
    inputs: tokens(batch.inputs),
    targets: tokens(batch.targets),
    positions: tokens(batch.positions),
    segments: bounds(batch.segments),
    sequences: bounds(batch.sequences),
    mtpInputs: batch.mtpInputs.map(tokens),
    mtpTargets: batch.mtpTargets.map(tokens),
    counted: batch.counted ?? {
      main: countTargets(batch.targets),
      mtp: batch.mtpTargets.map(countTargets),
    },
  };
}
