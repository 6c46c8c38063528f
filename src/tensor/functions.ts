import type { LinearRecipe, Operand } from '../spec/precision.js';
import type { AttentionShape, QuantizedTensor, RopeLayout } from './backend.js';
import type { Parameter } from './parameter.js';
import { quantizedShapes } from './quantized.js';
import type { Tape } from './tape.js';
import type { DType, Tensor } from './tensor.js';

/**
 * Differentiable functions: each calls an op of the backend and records on the tape how to go back.
 * Those of the mixture of experts are in `expert-functions.ts`. Legend as in `backend.ts`: T tokens, D hidden size.
 */

const IDENTITY: Record<string, DType> = { fp32: 'f32', bf16: 'bf16' };

/** Whether `x` is of this format already. */
export const isIdentity = (x: Tensor, { format }: { format: string }): boolean =>
  IDENTITY[format] === x.dtype;

/** An uninitialised operand for x [M, K]. */
function allocQuantized(tape: Tape, x: Tensor, operand: Operand): QuantizedTensor {
  const { codes, scales } = quantizedShapes(x.rows, x.cols, operand, x.dtype);
  return {
    operand,
    codes: tape.alloc(codes.shape, codes.dtype),
    scales: scales && tape.alloc(scales.shape, scales.dtype),
  };
}

const partsOf = (q: QuantizedTensor): Tensor[] => (q.scales ? [q.codes, q.scales] : [q.codes]);

/** x as a GEMM operand, for use at once. */
function quantizeNow(tape: Tape, x: Tensor, operand: Operand): QuantizedTensor {
  if (isIdentity(x, operand)) return { operand, codes: x, scales: undefined };
  const q = allocQuantized(tape, x, operand);
  tape.backend.quantize(x, q);
  return q;
}

/** Operands of activations, so that two Linears with one input quantise it once. */
const operandsOf = new WeakMap<Tensor, Map<string, QuantizedTensor>>();

/** x [M, K] as a GEMM operand that a backward pass may use; dropped and made again if x itself is. */
function quantize(tape: Tape, x: Tensor, operand: Operand): QuantizedTensor {
  if (isIdentity(x, operand)) return { operand, codes: x, scales: undefined };
  const key = `${operand.format}/${operand.scale}/${operand.granularity}`;
  let known = operandsOf.get(x);
  if (!known) {
    known = new Map();
    operandsOf.set(x, known);
  }
  const made = known.get(key);
  if (made) return made;
  const q = quantizeNow(tape, x, operand);
  known.set(key, q);
  if (tape.isDropped(x)) {
    // The scales are small and stay; `needs` keeps them.
    const needs = q.scales ? [x, q.scales] : [x];
    tape.dropAndRecompute(q.codes, needs, () => tape.backend.quantize(x, q));
    tape.record({ name: 'quantize', outputs: [q.codes], saved: [], backward: () => {} });
  }
  return q;
}

export interface LinearOptions {
  /** Rows of each group for a grouped weight [G, N, K]: i32 [G+1]. */
  offsets?: Tensor;
  /** Type of y; that of x by default. */
  output?: 'f32' | 'bf16';
  /** Do not keep y for the backward pass, multiply again there. */
  recompute?: boolean;
}

/** y = x·Wᵀ: x [M, K], W [N, K] → y [M, N]; grouped: rows of group g meet W[g]. Formats as `recipe` says. */
export function linear(
  tape: Tape,
  x: Tensor,
  w: Parameter,
  recipe: LinearRecipe,
  options: LinearOptions = {},
): Tensor {
  const { backend } = tape;
  const n = w.value.shape[w.value.shape.length - 2]!;
  const groups = { offsets: options.offsets, accumulator: recipe.accumulator };
  const q = quantize(tape, x, recipe.fprop.input);
  const y = tape.alloc([x.rows, n], options.output ?? x.dtype);
  const forward = () => backend.gemm(q, w.packed(recipe.fprop.weight, false), y, groups);
  forward();
  tape.observer.linear?.(w, x, y, options.offsets);
  if (options.recompute) tape.dropAndRecompute(y, partsOf(q), forward);
  tape.record({
    name: w.name,
    outputs: [y],
    saved: partsOf(q),
    backward: () => {
      tape.observer.linearBackward?.(w, y.grad!);
      const dy = quantizeNow(tape, y.grad!, recipe.dgrad.gradient);
      const weight = w.packed(recipe.dgrad.weight, true);
      tape.addGradInto(x, (dx, accumulate) => backend.gemm(dy, weight, dx, { ...groups, accumulate }));
      w.addGradient((dw, overwrite) =>
        backend.gemmWgrad(y.grad!, q, dw, recipe.wgrad, { ...groups, overwrite }),
      );
    },
  });
  return y;
}

/** y = a + b. */
export function add(tape: Tape, a: Tensor, b: Tensor): Tensor {
  const y = tape.alloc(a.shape, a.dtype);
  tape.backend.add(a, b, y);
  tape.record({
    name: 'add',
    outputs: [y],
    saved: [],
    backward: () => {
      tape.addGrad(a, y.grad!);
      tape.addGrad(b, y.grad!);
    },
  });
  return y;
}

/** RMSNorm over the last dimension [arXiv 1910.07467]; with `recompute`, y is not kept for the backward pass. */
export function rmsNorm(tape: Tape, x: Tensor, weight: Parameter, eps: number, recompute = false): Tensor {
  const { backend } = tape;
  const y = tape.alloc(x.shape, x.dtype);
  const inverseRms = tape.alloc([x.rows], 'f32');
  const forward = () => backend.rmsNorm(x, weight.value, eps, y, inverseRms);
  forward();
  if (recompute) tape.dropAndRecompute(y, [x, inverseRms], forward);
  tape.record({
    name: weight.name,
    outputs: [y],
    saved: [x, inverseRms],
    backward: () => {
      const dx = tape.alloc(x.shape, x.dtype);
      backend.rmsNormBackward(y.grad!, x, weight.value, inverseRms, dx, weight.gradient());
      tape.addGrad(x, dx);
    },
  });
  return y;
}

/** Rotary embedding in place on x [T, W]. */
export function rope(tape: Tape, x: Tensor, table: Tensor, positions: Tensor, layout: RopeLayout): void {
  const forward = () => tape.backend.rope(x, table, positions, layout, false);
  forward();
  tape.alsoInPlace(x, forward);
  // The record names no output: x belongs to the record that made it.
  tape.record({
    name: 'rope',
    outputs: [],
    saved: [],
    backward: () => {
      if (x.grad) tape.backend.rope(tape.ownGrad(x), table, positions, layout, true);
    },
  });
}

/** Columns of x [T, Σ widths] as separate tensors [T, width]. */
export function splitColumns(tape: Tape, x: Tensor, widths: readonly number[]): Tensor[] {
  const starts = widths.map((_, i) => widths.slice(0, i).reduce((a, b) => a + b, 0));
  const parts = widths.map((width) => tape.alloc([x.rows, width], x.dtype));
  parts.forEach((part, i) => {
    tape.backend.copyColumnsOut(x, starts[i]!, part);
  });
  tape.record({
    name: 'split',
    outputs: parts,
    saved: [],
    backward: () => {
      const dx = tape.alloc(x.shape, x.dtype);
      parts.forEach((part, i) => {
        tape.backend.copyColumnsIn(part.grad!, dx, starts[i]!);
      });
      tape.addGrad(x, dx);
    },
  });
  return parts;
}

/** [a | b] along the columns. */
export function concatColumns(tape: Tape, a: Tensor, b: Tensor): Tensor {
  const y = tape.alloc([a.rows, a.cols + b.cols], a.dtype);
  tape.backend.copyColumnsIn(a, y, 0);
  tape.backend.copyColumnsIn(b, y, a.cols);
  tape.record({
    name: 'concat',
    outputs: [y],
    saved: [],
    backward: () => {
      const da = tape.alloc(a.shape, a.dtype);
      const db = tape.alloc(b.shape, b.dtype);
      tape.backend.copyColumnsOut(y.grad!, 0, da);
      tape.backend.copyColumnsOut(y.grad!, a.cols, db);
      tape.addGrad(a, da);
      tape.addGrad(b, db);
    },
  });
  return y;
}

/** MLA's causal attention on expanded heads within `segments`; shapes as in the op. */
export function attention(
  tape: Tape,
  q: Tensor,
  kv: Tensor,
  kRope: Tensor,
  segments: Tensor,
  shape: AttentionShape,
): Tensor {
  const o = tape.alloc([q.rows, shape.heads * shape.v], q.dtype);
  const logSumExp = tape.alloc([shape.heads, q.rows], 'f32');
  tape.backend.attention(q, kv, kRope, segments, shape, o, logSumExp);
  tape.record({
    name: 'attention',
    outputs: [o],
    saved: [q, kv, kRope, o, logSumExp],
    backward: () => {
      const [dq, dkv, dkRope] = [q, kv, kRope].map((t) => tape.alloc(t.shape, t.dtype)) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      const saved = { q, kv, kRope, o, logSumExp, segments };
      tape.backend.attentionBackward(o.grad!, saved, shape, dq, dkv, dkRope);
      tape.addGrad(q, dq);
      tape.addGrad(kv, dkv);
      tape.addGrad(kRope, dkRope);
    },
  });
  return o;
}

/**
 * h = silu(gate)·up for gu = [gate | up] [R, 2I]. With a `cache` narrower than gu, gu is kept in that format
 * only, and h is computed again from it in the backward pass [TR §3.3.3].
 */
export function swiglu(tape: Tape, gu: Tensor, cache: Operand): Tensor {
  const { backend } = tape;
  const h = tape.alloc([gu.rows, gu.cols / 2], gu.dtype);
  backend.swiglu(gu, h);
  if (!isIdentity(gu, cache)) {
    const q = quantizeNow(tape, gu, cache);
    tape.dropAndRecompute(gu, partsOf(q), () => backend.dequantize(q, gu));
    tape.dropAndRecompute(h, [gu], () => backend.swiglu(gu, h));
  }
  tape.record({
    name: 'swiglu',
    outputs: [h],
    saved: [gu],
    backward: () => {
      const dgu = tape.alloc(gu.shape, gu.dtype);
      backend.swigluBackward(h.grad!, gu, dgu);
      tape.addGrad(gu, dgu);
    },
  });
  return h;
}

/** ids i32 [T] → rows of the table, in `dtype` [T, D]. */
export function embedding(tape: Tape, ids: Tensor, table: Parameter, dtype: 'f32' | 'bf16'): Tensor {
  const y = tape.alloc([ids.size, table.value.cols], dtype);
  tape.backend.embedding(ids, table.value, y);
  tape.record({
    name: table.name,
    outputs: [y],
    saved: [],
    backward: () => tape.backend.embeddingBackward(ids, y.grad!, table.gradient()),
  });
  return y;
}

/** Bytes of logits that exist at one time in `crossEntropy`. */
const LOGITS_BYTES = 16 * 2 ** 20;

/** Rows whose logits f32 [rows, vocabulary] exist at one time. */
export const rowsOfLogits = (vocabulary: number): number =>
  Math.max(64, Math.floor(LOGITS_BYTES / (4 * vocabulary) / 64) * 64);

/**
 * −log p(target) of h·Wᵀ without ever holding all logits: rows are taken in chunks, and each chunk's gradient
 * is computed while its logits exist. h [T, D], W [V, D], targets i32 [T] (negative: ignored) → losses f32 [T].
 * The loss that is differentiated is Σ losses · `gradientScale`.
 */
export function crossEntropy(
  tape: Tape,
  h: Tensor,
  head: Parameter,
  targets: Tensor,
  recipe: LinearRecipe,
  gradientScale: number,
): Tensor {
  const losses = tape.alloc([h.rows], 'f32');
  const chunk = rowsOfLogits(head.value.shape[0]!);
  const dh = tape.recording ? tape.alloc(h.shape, h.dtype) : undefined;
  for (let from = 0; from < h.rows; from += chunk) {
    const to = Math.min(from + chunk, h.rows);
    tape.scope(() => {
      const part = (t: Tensor) => t.rowsView(from, to);
      lossOfRows(
        tape,
        part(h),
        head,
        slice(targets, from, to),
        recipe,
        gradientScale,
        slice(losses, from, to),
        dh && part(dh),
      );
      return undefined;
    });
  }
  if (dh) {
    tape.record({ name: head.name, outputs: [], saved: [dh], backward: () => tape.addGrad(h, dh) });
  }
  return losses;
}

const slice = (t: Tensor, from: number, to: number): Tensor =>
  t
    .reshape([t.size, 1])
    .rowsView(from, to)
    .reshape([to - from]);

function lossOfRows(
  tape: Tape,
  h: Tensor,
  head: Parameter,
  targets: Tensor,
  recipe: LinearRecipe,
  gradientScale: number,
  losses: Tensor,
  dh: Tensor | undefined,
): void {
  const { backend } = tape;
  const { accumulator } = recipe;
  const q = quantizeNow(tape, h, recipe.fprop.input);
  const logits = tape.alloc([h.rows, head.value.shape[0]!], 'f32');
  backend.gemm(q, head.packed(recipe.fprop.weight, false), logits, { accumulator });
  const dlogits = dh && tape.alloc(logits.shape, h.dtype);
  backend.crossEntropy(logits, targets, losses, dlogits, gradientScale);
  if (!dh || !dlogits) return;
  const gradient = quantizeNow(tape, dlogits, recipe.dgrad.gradient);
  backend.gemm(gradient, head.packed(recipe.dgrad.weight, true), dh, { accumulator });
  head.addGradient((dw, overwrite) =>
    backend.gemmWgrad(dlogits, q, dw, recipe.wgrad, { accumulator, overwrite }),
  );
}
