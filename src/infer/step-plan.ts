import { type LatentRows, PAGE_TOKENS } from '../tensor/latent-pages.js';
import { Tensor } from '../tensor/tensor.js';
import type { StepBatch } from './runner.js';

/** Where the rows of one step stand. Legend as in `runner.ts`: M new tokens, S sequences. */
export interface StepPlan {
  /** i32 [M]. */
  tokens: Tensor;
  /** i32 [M]: position of each new token in its sequence. */
  positions: Tensor;
  /** i32 [M]: cache slot of each new token. */
  slots: Tensor;
  /** How attention is computed, rows in order. */
  parts: AttentionPart[];
}

/** Neighbouring rows whose attention is computed the same way. */
export type AttentionPart = { from: number; to: number } & (
  | {
      kind: 'expanded';
      /** i32: row bounds of the sequences, from 0 at `from`. */
      segments: Tensor;
    }
  | {
      kind: 'absorbed';
      /** Rows from 0 at `from`. */
      rows: LatentRows;
    }
);

/**
 * Lays out a step.
 * @param context most tokens that a sequence may have
 * @throws RangeError when a sequence outgrows its pages or the context
 */
export function planStep(batch: StepBatch, context: number): StepPlan {
  const count = batch.tokens.length;
  const positions = new Int32Array(count);
  const slots = new Int32Array(count);
  const sequences = batch.lengths.map((length, s) => {
    const [from, to] = [batch.bounds[s]!, batch.bounds[s + 1]!];
    const pages = batch.pages[s]!;
    checkFits(s, length + to - from, pages, context);
    for (let i = from; i < to; i++) {
      positions[i] = length + i - from;
      slots[i] = slotOf(pages, positions[i]!);
    }
    return { from, to, length, pages };
  });
  return {
    tokens: Tensor.i32(batch.tokens),
    positions: Tensor.i32(positions),
    slots: Tensor.i32(slots),
    parts: partsOf(sequences),
  };
}

interface Sequence {
  from: number;
  to: number;
  length: number;
  pages: Int32Array;
}

const slotOf = (pages: Int32Array, position: number): number =>
  pages[Math.floor(position / PAGE_TOKENS)]! * PAGE_TOKENS + (position % PAGE_TOKENS);

function checkFits(s: number, length: number, pages: Int32Array, context: number): void {
  if (length > context) throw new RangeError(`sequence ${s} has ${length} tokens; the context is ${context}`);
  if (length > pages.length * PAGE_TOKENS) {
    throw new RangeError(`sequence ${s} has ${length} tokens but ${pages.length} pages of ${PAGE_TOKENS}`);
  }
}

/** A prompt from its start takes the expanded form of training, everything else the absorbed one. */
function partsOf(sequences: readonly Sequence[]): AttentionPart[] {
  const parts: AttentionPart[] = [];
  const isExpanded = ({ from, to, length }: Sequence) => length === 0 && to - from > 1;
  for (let s = 0; s < sequences.length; ) {
    const expanded = isExpanded(sequences[s]!);
    let end = s + 1;
    while (end < sequences.length && isExpanded(sequences[end]!) === expanded) end++;
    const run = sequences.slice(s, end);
    const [from, to] = [run[0]!.from, run.at(-1)!.to];
    if (to > from) parts.push({ from, to, ...(expanded ? segmentsOf(run) : latentRows(run)) });
    s = end;
  }
  return parts;
}

function segmentsOf(run: readonly Sequence[]): { kind: 'expanded'; segments: Tensor } {
  const start = run[0]!.from;
  return { kind: 'expanded', segments: Tensor.i32([0, ...run.map(({ to }) => to - start)]) };
}

function latentRows(run: readonly Sequence[]): { kind: 'absorbed'; rows: LatentRows } {
  const start = run[0]!.from;
  const pageBounds = [0];
  for (const { pages } of run) pageBounds.push(pageBounds.at(-1)! + pages.length);
  const rows = {
    bounds: Tensor.i32([0, ...run.map(({ to }) => to - start)]),
    lengths: Tensor.i32(run.map(({ length }) => length)),
    pages: Tensor.i32(run.flatMap(({ pages }) => [...pages])),
    pageBounds: Tensor.i32(pageBounds),
  };
  return { kind: 'absorbed', rows };
}
