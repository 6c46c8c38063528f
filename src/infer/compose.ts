import { LATENT_NORM_EPS } from '../model/mla.js';
import type {
  AttentionWeights,
  BlockRows,
  ExpertWeights,
  FeedForwardWeights,
  SwigluWeights,
} from '../tensor/blocks.js';
import type { StoredWeight } from '../tensor/inference.js';
import type { LatentPages } from '../tensor/latent-pages.js';
import type { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import type { AttentionStep, ExpandedRows } from './step-plan.js';

/**
 * The blocks of a decoder layer, composed of the backend's ops: what `attentionBlock` and `feedForwardBlock` do in one call,
 * and the form for many tokens. Everything between the ops is FP32, so that a row's result is the same to the bit
 * whatever form its step takes.
 *
 * Legend as in `tensor/blocks.ts`: M tokens, D hidden size, H heads, R = M·K rows after dispatch. The tape hands out memory.
 */

/** x · Wᵀ in fresh memory. */
export function project(tape: Tape, x: Tensor, w: StoredWeight, offsets?: Tensor): Tensor {
  const y = tape.alloc([x.rows, w.n], 'f32');
  tape.backend.project(x, w, y, offsets && { offsets });
  return y;
}

/** RMSNorm of x in fresh memory. */
export function norm(tape: Tape, x: Tensor, weight: Tensor, eps: number): Tensor {
  const y = tape.alloc(x.shape, x.dtype);
  tape.backend.rmsNorm(x, weight, eps, y, tape.alloc([x.rows], 'f32'));
  return y;
}

/** What `normProject` of a backend does. @returns [M, K], [wanted, N] */
export function normProject(
  tape: Tape,
  parts: readonly Tensor[],
  norms: readonly Tensor[],
  eps: number,
  w: StoredWeight,
  wanted?: Int32Array,
): { normed: Tensor; value: Tensor } {
  const each = parts.map((x, p) => norm(tape, x, norms[p]!, eps));
  const normed = each.length === 1 ? each[0]! : tape.alloc([parts[0]!.rows, w.k], 'f32');
  let at = 0;
  if (each.length > 1) {
    for (const part of each) {
      tape.backend.copyColumnsIn(part, normed, at);
      at += part.cols;
    }
  }
  if (!wanted || wanted.length === normed.rows) return { normed, value: project(tape, normed, w) };
  const rows = tape.alloc([wanted.length, normed.cols], 'f32');
  if (wanted.length > 0) tape.backend.permute(normed, Tensor.i32(wanted), rows);
  return { normed, value: wanted.length > 0 ? project(tape, rows, w) : tape.alloc([0, w.n], 'f32') };
}

function columns(tape: Tape, x: Tensor, from: number, width: number): Tensor {
  const out = tape.alloc([x.rows, width], x.dtype);
  tape.backend.copyColumnsOut(x, from, out);
  return out;
}

/** x [M, D] += W^O attention(RMSNorm(x)); appends to the cache. */
export function attentionBlock(
  tape: Tape,
  x: Tensor,
  w: AttentionWeights,
  pages: LatentPages,
  step: AttentionStep,
): void {
  const { backend } = tape;
  const d = project(tape, norm(tape, x, w.inputNorm, w.eps), w.down);
  const q = queries(tape, w, d); // [M, H·(d_h + d_h^R)]
  const c = norm(tape, columns(tape, d, d.cols - w.latent - w.rope, w.latent), w.latentNorm, LATENT_NORM_EPS);
  const kR = columns(tape, d, d.cols - w.rope, w.rope);
  const pairs = { rope: w.rope, interleaved: w.interleaved };
  const slices = { heads: w.heads, stride: w.nope + w.rope, offset: w.nope, ...pairs };
  if (w.rope > 0) {
    backend.rope(q, w.ropeTable, step.positions, slices, false);
    backend.rope(kR, w.ropeTable, step.positions, { heads: 1, stride: w.rope, offset: 0, ...pairs }, false);
  }
  backend.latentWrite(c, kR, step.slots, pages);
  const o = tape.alloc([x.rows, w.heads * w.v], 'f32');
  for (const part of step.parts) {
    const rows = (t: Tensor) => t.rowsView(part.from, part.to);
    tape.scope(() => {
      const value =
        part.kind === 'absorbed'
          ? absorbed(tape, w, rows(q), pages, part.rows)
          : expanded(tape, w, rows(q), pages, part.rows);
      backend.cast(value, rows(o));
      return undefined;
    });
  }
  backend.project(o, w.output, x, { accumulate: true });
}

function queries(tape: Tape, { query, heads, nope, rope }: AttentionWeights, d: Tensor): Tensor {
  if (!query) return columns(tape, d, 0, heads * (nope + rope));
  const c = columns(tape, d, 0, query.up.k); // c^Q [M, d_c']
  return project(tape, norm(tape, c, query.norm, LATENT_NORM_EPS), query.up);
}

/** Absorbed form [V2 §2.1.2]: q [T, H·(d_h + d_h^R)] on the cached latents → o [T, H·d_v]. */
function absorbed(
  tape: Tape,
  w: AttentionWeights,
  q: Tensor,
  pages: LatentPages,
  rows: BlockRows['rows'],
): Tensor {
  const { backend } = tape;
  const { heads, nope, rope, latent, v } = w;
  const order = headMajor(q.rows, heads);
  const moved = (x: Tensor, source: Tensor) => {
    const out = tape.alloc(x.shape, x.dtype);
    backend.permute(x, source, out);
    return out;
  };
  const each = q.reshape([q.rows * heads, nope + rope]);
  const qNope = moved(columns(tape, each, 0, nope), order.toHeads);
  const qLatent = moved(project(tape, qNope, w.keyUp, order.offsets), order.toTokens);
  const full = tape.alloc([q.rows * heads, latent + rope], 'f32');
  backend.copyColumnsIn(qLatent, full, 0);
  if (rope > 0) backend.copyColumnsIn(columns(tape, each, nope, rope), full, latent);
  const sums = tape.alloc([q.rows, heads * latent], 'f32');
  const query = full.reshape([q.rows, heads * (latent + rope)]);
  backend.latentAttention(query, pages, rows, { heads, scale: w.scale }, sums);
  const o = project(
    tape,
    moved(sums.reshape([q.rows * heads, latent]), order.toHeads),
    w.valueUp,
    order.offsets,
  );
  return moved(o, order.toTokens).reshape([q.rows, heads * v]);
}

/** Row orders between (token, head) and (head, token), and the rows of each head. */
function headMajor(tokens: number, heads: number): { toHeads: Tensor; toTokens: Tensor; offsets: Tensor } {
  const count = tokens * heads;
  const order = (row: (r: number) => number) =>
    Tensor.i32(Int32Array.from({ length: count }, (_, r) => row(r)));
  return {
    toHeads: order((r) => (r % tokens) * heads + Math.floor(r / tokens)),
    toTokens: order((r) => (r % heads) * tokens + Math.floor(r / heads)),
    offsets: Tensor.i32(Int32Array.from({ length: heads + 1 }, (_, h) => h * tokens)),
  };
}

/**
 * Expanded form: keys and values of all tokens of the sequences, computed from the cache; q [T, H·(d_h + d_h^R)] of their last
 * tokens → o [T, H·d_v], both in the type that a matrix unit takes.
 */
function expanded(
  tape: Tape,
  w: AttentionWeights,
  q: Tensor,
  pages: LatentPages,
  rows: ExpandedRows,
): Tensor {
  const { backend } = tape;
  const { heads, nope, rope, v, scale } = w;
  const dtype = w.keyValueUp.format === 'fp32' ? 'f32' : 'bf16';
  const c = tape.alloc([rows.slots.size, w.latent], dtype);
  const kR = tape.alloc([rows.slots.size, rope], dtype);
  backend.latentRead(pages, rows.slots, c, kR);
  const kv = tape.alloc([rows.slots.size, heads * (nope + v)], dtype);
  backend.project(c, w.keyValueUp, kv);
  const narrow = tape.alloc(q.shape, dtype);
  backend.cast(q, narrow);
  const o = tape.alloc([q.rows, heads * v], dtype);
  const logSumExp = tape.alloc([heads, q.rows], 'f32');
  backend.attention(
    narrow,
    kv,
    kR,
    rows.segments,
    { heads, nope, rope, v, scale },
    o,
    logSumExp,
    rows.queries,
  );
  return o;
}

/** x [M, D] += FFN or MoE of RMSNorm(x). */
export function feedForwardBlock(tape: Tape, x: Tensor, w: FeedForwardWeights): void {
  const u = norm(tape, x, w.norm, w.eps);
  if (w.experts) mixtureOfExperts(tape, x, u, w.experts);
  if (w.dense) tape.backend.project(swiglu(tape, u, w.dense), w.dense.down, x, { accumulate: true });
}

/** u [R, D] → silu(gate)·up [R, I]. */
export function swiglu(tape: Tape, u: Tensor, w: SwigluWeights, offsets?: Tensor): Tensor {
  const gu = project(tape, u, w.gateUp, offsets);
  const h = tape.alloc([u.rows, w.down.k], 'f32');
  tape.backend.swiglu(gu, h);
  return h;
}

/** x [M, D] += Σ_chosen g_i·FFN_i(u), then Σ_shared FFN(u) [TR §2.1.2]. */
function mixtureOfExperts(tape: Tape, x: Tensor, u: Tensor, w: ExpertWeights): void {
  const { backend } = tape;
  const { experts, topK } = w.shape;
  const rows = u.rows * topK;
  const ids = tape.alloc([u.rows, topK], 'i32');
  const weights = tape.alloc([u.rows, topK], 'f32');
  backend.route(project(tape, u, w.gate), w.bias, w.shape, ids, weights, tape.alloc([experts], 'i32'));
  const [offsets, source, slot] = [[experts + 1], [rows], [u.rows, topK]].map((s) =>
    tape.alloc(s, 'i32'),
  ) as [Tensor, Tensor, Tensor];
  backend.dispatchPlan(ids, offsets, source, slot);
  const sent = tape.alloc([rows, u.cols], 'f32');
  backend.permute(u, source, sent);
  const out = project(tape, swiglu(tape, sent, w.routed, offsets), w.routed.down, offsets);
  const y = tape.alloc(u.shape, 'f32');
  backend.unpermute(out, slot, weights, y);
  backend.add(x, y, x);
  if (w.shared) backend.project(swiglu(tape, u, w.shared), w.shared.down, x, { accumulate: true });
}
