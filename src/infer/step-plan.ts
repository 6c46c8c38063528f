import type { BlockRows } from '../tensor/blocks.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { Tensor } from '../tensor/tensor.js';
import type { AttentionForm } from './attention-form.js';
import type { StepBatch } from './runner.js';

/** Neighbouring rows of a step with the form of their attention. */
export type AttentionPart =
  | { kind: 'absorbed'; from: number; to: number; rows: BlockRows['rows'] }
  | { kind: 'expanded'; from: number; to: number; rows: ExpandedRows };

/** Rows of a step. */
export interface AttentionStep extends Pick<BlockRows, 'positions' | 'slots'> {
  parts: readonly AttentionPart[];
}

/** Where the rows of one step stand. Legend as in `runner.ts`: M new tokens, S sequences. */
export interface StepPlan extends AttentionStep {
  /** [M]. */
  tokens: Int32Array;
}

/** Sequences whose keys and values are computed from the cache. */
export interface ExpandedRows {
  /** i32 [T]: cache slots of all tokens of the sequences. */
  slots: Tensor;
  /** i32: bounds of the sequences in `slots`. */
  segments: Tensor;
  /** i32: bounds of their new tokens among the part's rows. */
  queries: Tensor;
}

/**
 * Lays out a step.
 * @param context most tokens that a sequence may have
 * @param formOf form of attention for `added` tokens behind `cached` ones
 * @throws RangeError when a sequence outgrows its pages or the context
 */
export function planStep(
  batch: StepBatch,
  context: number,
  formOf: (cached: number, added: number) => AttentionForm,
): StepPlan {
  const positions = new Int32Array(batch.tokens.length);
  const slots = new Int32Array(batch.tokens.length);
  const sequences = batch.lengths.map((length, s): Sequence => {
    const [from, to] = [batch.bounds[s]!, batch.bounds[s + 1]!];
    const pages = batch.pages[s]!;
    checkFits(s, length + to - from, pages, context);
    for (let i = from; i < to; i++) {
      positions[i] = length + i - from;
      slots[i] = slotOf(pages, positions[i]!);
    }
    return { from, to, length, pages, form: formOf(length, to - from) };
  });
  return {
    tokens: batch.tokens,
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
  form: AttentionForm;
}

const slotOf = (pages: Int32Array, position: number): number =>
  pages[Math.floor(position / PAGE_TOKENS)]! * PAGE_TOKENS + (position % PAGE_TOKENS);

function checkFits(s: number, length: number, pages: Int32Array, context: number): void {
  if (length > context) throw new RangeError(`sequence ${s} has ${length} tokens; the context is ${context}`);
  if (length > pages.length * PAGE_TOKENS) {
    throw new RangeError(`sequence ${s} has ${length} tokens but ${pages.length} pages of ${PAGE_TOKENS}`);
  }
}

/** Neighbours of one form together; expanded sequences apart, so that their keys and values exist one after the other. */
function partsOf(sequences: readonly Sequence[]): AttentionPart[] {
  const parts: AttentionPart[] = [];
  for (let s = 0; s < sequences.length; ) {
    const { form } = sequences[s]!;
    let end = s + 1;
    while (form === 'absorbed' && sequences[end]?.form === form) end++;
    const run = sequences.slice(s, end);
    const [from, to] = [run[0]!.from, run.at(-1)!.to];
    if (to > from && form === 'absorbed') parts.push({ kind: form, from, to, rows: latentRows(run) });
    if (to > from && form === 'expanded') parts.push({ kind: form, from, to, rows: expandedRows(run[0]!) });
    s = end;
  }
  return parts;
}

function latentRows(run: readonly Sequence[]): Extract<AttentionPart, { kind: 'absorbed' }>['rows'] {
  const start = run[0]!.from;
  const pageBounds = [0];
  for (const { pages } of run) pageBounds.push(pageBounds.at(-1)! + pages.length);
  const table = new Int32Array(pageBounds.at(-1)!);
  run.forEach(({ pages }, i) => {
    table.set(pages, pageBounds[i]!);
  });
  return {
    bounds: Tensor.i32([0, ...run.map(({ to }) => to - start)]),
    lengths: Tensor.i32(run.map(({ length }) => length)),
    pages: Tensor.i32(table),
    pageBounds: Tensor.i32(pageBounds),
  };
}

function expandedRows({ from, to, length, pages }: Sequence): ExpandedRows {
  const tokens = length + to - from;
  return {
    slots: Tensor.i32(Int32Array.from({ length: tokens }, (_, position) => slotOf(pages, position))),
    segments: Tensor.i32([0, tokens]),
    queries: Tensor.i32([0, to - from]),
  };
}
