import type { Tape } from './tape.js';
import { Tensor } from './tensor.js';

/**
 * Multi-head, grouped-query and multi-query attention [arXiv 1706.03762, 2305.13245, 1911.02150] on the op that MLA uses.
 *
 * Legend: T tokens, H query heads, G key-value heads, H/G query heads in a row share one; d size of queries and keys,
 * d_v of values. To the op all of a key is non-rotary: the caller has turned it.
 */
export interface GroupedAttentionShape {
  /** H. */
  heads: number;
  /** G; divides H. */
  groups: number;
  /** d. */
  depth: number;
  /** d_v. */
  v: number;
  /** Softmax scale. */
  scale: number;
}

/** Causal attention within `segments`: q [T, H·d], k [T, G·d], v [T, G·d_v] → o [T, H·d_v]. */
export function groupedAttention(
  tape: Tape,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  segments: Tensor,
  shape: GroupedAttentionShape,
): Tensor {
  const { backend } = tape;
  const { heads, scale } = shape;
  const op = { heads, nope: shape.depth, rope: 0, v: shape.v, scale };
  const o = tape.alloc([q.rows, heads * shape.v], q.dtype);
  const logSumExp = tape.alloc([heads, q.rows], 'f32');
  const kRope = tape.alloc([q.rows, 0], q.dtype);
  tape.scope(() => {
    backend.attention(q, join(tape, k, v, shape), kRope, segments, op, o, logSumExp);
    return undefined;
  });
  tape.record({
    name: 'grouped attention',
    outputs: [o],
    saved: [q, k, v, kRope, o, logSumExp],
    backward: () => {
      const kv = join(tape, k, v, shape);
      const dq = tape.alloc(q.shape, q.dtype);
      const dkv = tape.alloc(kv.shape, kv.dtype);
      const saved = { q, kv, kRope, o, logSumExp, segments };
      backend.attentionBackward(o.grad!, saved, op, dq, dkv, tape.alloc(kRope.shape, kRope.dtype));
      const [dk, dv] = separate(tape, dkv, shape);
      tape.addGrad(q, dq);
      tape.addGrad(k, dk);
      tape.addGrad(v, dv);
    },
  });
  return o;
}

/** Keys and values per query head, as the op wants them: [T, H·(d + d_v)]. */
function join(tape: Tape, k: Tensor, v: Tensor, { heads, groups, depth, v: width }: GroupedAttentionShape) {
  const kv = tape.alloc([k.rows, heads * (depth + width)], k.dtype);
  const perGroup = (x: Tensor, columns: number) => x.reshape([k.rows * groups, columns]);
  const out = perGroup(kv, (heads / groups) * (depth + width));
  for (let column = 0; column < out.cols; column += depth + width) {
    tape.backend.copyColumnsIn(perGroup(k, depth), out, column);
    tape.backend.copyColumnsIn(perGroup(v, width), out, column + depth);
  }
  return kv;
}

/** The transpose of `join`: dkv [T, H·(d + d_v)] summed over the heads that share → dk [T, G·d], dv [T, G·d_v]. */
function separate(
  tape: Tape,
  dkv: Tensor,
  { heads, groups, depth, v: width }: GroupedAttentionShape,
): [Tensor, Tensor] {
  const rows = dkv.rows * groups;
  const sum = groups === heads ? dkv.reshape([rows, depth + width]) : sumOfSharers(tape, dkv, heads, groups);
  const dk = tape.alloc([dkv.rows, groups * depth], dkv.dtype);
  const dv = tape.alloc([dkv.rows, groups * width], dkv.dtype);
  tape.backend.copyColumnsOut(sum, 0, dk.reshape([rows, depth]));
  tape.backend.copyColumnsOut(sum, depth, dv.reshape([rows, width]));
  return [dk, dv];
}

/** x [T, H·w] → Σ over H/G heads in a row [T·G, w], rounded once: heads are the rows that `unpermute` adds up. */
function sumOfSharers(tape: Tape, x: Tensor, heads: number, groups: number): Tensor {
  const perHead = x.reshape([x.rows * heads, x.cols / heads]);
  const inOrder = Tensor.i32(Int32Array.from({ length: perHead.rows }, (_, row) => row));
  const sum = tape.alloc([x.rows * groups, perHead.cols], x.dtype);
  tape.backend.unpermute(perHead, inOrder.reshape([sum.rows, heads / groups]), undefined, sum);
  return sum;
}
