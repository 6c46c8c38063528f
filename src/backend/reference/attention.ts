import type { AttentionShape } from '../../tensor/backend.js';
import type { Tensor } from '../../tensor/tensor.js';
import { addScaled, commit, dot, integers, read, target, type Values } from './values.js';

/**
 * Multi-head latent attention [TR §2.1.1; V2 §2.1]. Each head is gathered into matrices of its own, so that the
 * formulas stand alone: Q, K [T, d] with d = nope + rope (every head shares k_rope), V, O [T, v].
 */
interface Head {
  q: Values;
  k: Values;
  v: Values;
}

/** Columns `from` .. `from + width` of a matrix [T, stride] → columns `to`.. of `out` [T, outStride]. */
function copyBlock(
  x: Values,
  stride: number,
  from: number,
  width: number,
  out: Values,
  outStride: number,
  to: number,
): void {
  const rows = out.length / outStride;
  for (let t = 0; t < rows; t++) {
    out.set(x.subarray(t * stride + from, t * stride + from + width), t * outStride + to);
  }
}

/** Columns `from` .. `from + width` of a matrix [T, stride] as a matrix [T, width]. */
function columns(x: Values, stride: number, from: number, width: number): Float64Array {
  const out = new Float64Array((x.length / stride) * width);
  copyBlock(x, stride, from, width, out, width, 0);
  return out;
}

/** Head `h` of q [T, H·(nope+rope)], kv [S, H·(nope+v)], kRope [S, rope]. */
function headOf(q: Values, kv: Values, kRope: Values, s: AttentionShape, h: number): Head {
  const width = s.nope + s.rope;
  const kvWidth = s.nope + s.v;
  const k = new Float64Array((kv.length / (s.heads * kvWidth)) * width);
  copyBlock(kv, s.heads * kvWidth, h * kvWidth, s.nope, k, width, 0);
  copyBlock(kRope, s.rope, 0, s.rope, k, width, s.nope);
  return {
    q: columns(q, s.heads * width, h * width, width),
    k,
    v: columns(kv, s.heads * kvWidth, h * kvWidth + s.nope, s.v),
  };
}

/** Calls `visit(i, first, count)` for every query i with the keys that it sees: `count` from `first`. */
function forEachQuery(
  segments: Int32Array,
  queries: Int32Array,
  visit: (i: number, first: number, count: number) => void,
): void {
  for (let s = 0; s + 1 < segments.length; s++) {
    const unseen = queries[s + 1]! - 1;
    for (let i = queries[s]!; i <= unseen; i++)
      visit(i, segments[s]!, segments[s + 1]! - segments[s]! - (unseen - i));
  }
}

/** scores → probabilities over its first `count` elements; returns log Σ exp(score). */
function softmax(scores: Float64Array, count: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < count; j++) max = Math.max(max, scores[j]!);
  let sum = 0;
  for (let j = 0; j < count; j++) {
    scores[j] = Math.exp(scores[j]! - max);
    sum += scores[j]!;
  }
  for (let j = 0; j < count; j++) scores[j]! /= sum;
  return max + Math.log(sum);
}

/**
 * o_i = Σ_{j ≤ i, same segment} p_ij v_j with p_i = softmax_j(scale · q_i·k_j); logSumExp [H, T] is the
 * logarithm of the softmax's denominator.
 */
export function attention(
  q: Tensor,
  kv: Tensor,
  kRope: Tensor,
  segments: Tensor,
  shape: AttentionShape,
  o: Tensor,
  logSumExp: Tensor,
  queries: Tensor = segments,
): void {
  const inputs = [read(q), read(kv), read(kRope)] as const;
  const bounds = [integers(segments), integers(queries)] as const;
  const output = target(o);
  const lse = read(logSumExp);
  const tokens = q.rows;
  for (let h = 0; h < shape.heads; h++) {
    const head = headOf(...inputs, shape, h);
    const result = attendHead(head, ...bounds, shape, lse.subarray(h * tokens, (h + 1) * tokens));
    copyBlock(result, shape.v, 0, shape.v, output, shape.heads * shape.v, h * shape.v);
  }
  commit(o, output);
}

/** One head of `attention`: returns O [T, v], fills lse [T]. */
function attendHead(
  head: Head,
  segments: Int32Array,
  queries: Int32Array,
  shape: AttentionShape,
  lse: Values,
): Float64Array {
  const { nope, rope, v: width, scale } = shape;
  const depth = nope + rope;
  const p = new Float64Array(head.k.length / depth);
  const o = new Float64Array(lse.length * width);
  forEachQuery(segments, queries, (i, first, count) => {
    for (let j = 0; j < count; j++) {
      p[j] = scale * dot(head.q, i * depth, head.k, (first + j) * depth, depth);
    }
    lse[i] = softmax(p, count);
    for (let j = 0; j < count; j++) addScaled(o, i * width, p[j]!, head.v, (first + j) * width, width);
  });
  return o;
}

/**
 * With p_ij = exp(scale·q_i·k_j − lse_i) and δ_i = dO_i·o_i: dv_j = Σ_i p_ij dO_i, ds_ij = p_ij (dO_i·v_j − δ_i),
 * dq_i = scale Σ_j ds_ij k_j, dk_j = scale Σ_i ds_ij q_i [arXiv 2205.14135, app. B.2]. dkRope sums over the heads.
 */
export function attentionBackward(
  dO: Tensor,
  saved: { q: Tensor; kv: Tensor; kRope: Tensor; o: Tensor; logSumExp: Tensor; segments: Tensor },
  shape: AttentionShape,
  dq: Tensor,
  dkv: Tensor,
  dkRope: Tensor,
): void {
  const { heads, nope, rope, v } = shape;
  const width = nope + rope;
  const tokens = saved.q.rows;
  const inputs = [read(saved.q), read(saved.kv), read(saved.kRope)] as const;
  const [upstream, output, lse] = [read(dO), read(saved.o), read(saved.logSumExp)];
  const [dqAll, dkvAll] = [target(dq), target(dkv)];
  const dkRopeSum = new Float64Array(dkRope.size);
  for (let h = 0; h < heads; h++) {
    const gradient = backwardHead(
      headOf(...inputs, shape, h),
      columns(upstream, heads * v, h * v, v),
      columns(output, heads * v, h * v, v),
      lse.subarray(h * tokens, (h + 1) * tokens),
      integers(saved.segments),
      shape,
    );
    copyBlock(gradient.q, width, 0, width, dqAll, heads * width, h * width);
    copyBlock(gradient.k, width, 0, nope, dkvAll, heads * (nope + v), h * (nope + v));
    copyBlock(gradient.v, v, 0, v, dkvAll, heads * (nope + v), h * (nope + v) + nope);
    for (let t = 0; t < tokens; t++) addScaled(dkRopeSum, t * rope, 1, gradient.k, t * width + nope, rope);
  }
  const dkRopeAll = target(dkRope);
  dkRopeAll.set(dkRopeSum);
  commit(dq, dqAll);
  commit(dkv, dkvAll);
  commit(dkRope, dkRopeAll);
}

/** One head of `attentionBackward`: dO, o [T, v], lse [T] → dQ, dK [T, nope+rope], dV [T, v]. */
function backwardHead(
  head: Head,
  dO: Float64Array,
  o: Float64Array,
  lse: Values,
  segments: Int32Array,
  shape: AttentionShape,
): Head {
  const { v: width, scale } = shape;
  const depth = shape.nope + shape.rope;
  const [dq, dk, dv] = [head.q, head.k, head.v].map((x) => new Float64Array(x.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  forEachQuery(segments, segments, (i, first) => {
    const delta = dot(dO, i * width, o, i * width, width);
    for (let j = first; j <= i; j++) {
      const p = Math.exp(scale * dot(head.q, i * depth, head.k, j * depth, depth) - lse[i]!);
      const ds = scale * p * (dot(dO, i * width, head.v, j * width, width) - delta);
      addScaled(dv, j * width, p, dO, i * width, width);
      addScaled(dq, i * depth, ds, head.k, j * depth, depth);
      addScaled(dk, j * depth, ds, head.q, i * depth, depth);
    }
  });
  return { q: dq, k: dk, v: dv };
}
