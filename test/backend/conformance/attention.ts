import { referenceBackend } from '../../../src/backend/reference/index.js';
import type { AttentionShape } from '../../../src/tensor/backend.js';
import { type DType, Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import { blank, type Case, largest, runOn, type Tensors, ULP } from './harness.js';

/** [heads, nope, rope, v]: small, DeepSeek-V3's own, the demo's, sizes that fill no vector, and no shared part. */
const HEADS: readonly [number, number, number, number][] = [
  [1, 16, 8, 16],
  [3, 6, 2, 5],
  [2, 32, 16, 32],
  [1, 128, 64, 128],
  [2, 128, 64, 128],
  [3, 96, 0, 64],
];

/** Bounds of the segments; tokens are the last of each. */
const SEGMENTS: readonly number[][] = [
  [0, 1],
  [0, 5],
  [0, 37],
  [0, 1, 20, 63, 64, 130],
  [0, 200],
  [0, 0, 40, 40, 257],
];

/** Bounds of queries that are fewer than the keys of the last of SEGMENTS, [0, 0, 40, 40, 257]. */
const LAST_QUERIES: readonly number[][] = [
  [0, 0, 1, 1, 131],
  [2, 2, 42, 42, 43],
  [0, 0, 0, 0, 217],
];

export function* attentionOps(): Generator<Case> {
  for (const dtype of ['f32', 'bf16'] as const) {
    for (const heads of HEADS) {
      for (const segments of SEGMENTS) {
        yield forwardCase(heads, segments, dtype);
        yield backwardCase(heads, segments, dtype);
      }
      for (const queries of LAST_QUERIES) yield lastQueriesCase(heads, queries, dtype);
    }
  }
}

/**
 * Kernels keep probabilities and score gradients in the type of the activations before they multiply again, as flash
 * attention does [arXiv 2205.14135]. Each such factor is wrong by at most 2^-8 (BF16) or, with sums of up to `length`
 * FP32 products and an exponential, by about 64 + length ulps of FP32; the sums by as much of their terms'
 * magnitudes, for which `largest` stands.
 */
const relativeError = (dtype: DType, length: number): number =>
  (dtype === 'bf16' ? 2 ** -8 : 0) + (64 + length) * ULP;

const shapeOf = ([heads, nope, rope, v]: readonly [number, number, number, number]): AttentionShape => ({
  heads,
  nope,
  rope,
  v,
  scale: 1 / Math.sqrt(nope + rope),
});

const nameOf = ({ heads, nope, rope, v }: AttentionShape, segments: number[], dtype: DType) =>
  `${heads} heads of ${nope}+${rope}/${v}, segments ${segments}, ${dtype}`;

function forwardCase(
  heads: readonly [number, number, number, number],
  segments: number[],
  dtype: DType,
): Case {
  const data = new Data(300);
  const shape = shapeOf(heads);
  const tokens = segments[segments.length - 1]!;
  const depth = shape.nope + shape.rope;
  const kv = data.normal([tokens, shape.heads * (shape.nope + shape.v)], dtype);
  return {
    op: 'attention',
    name: nameOf(shape, segments, dtype),
    inputs: {
      // Spread 3: some rows attend almost to one token, where the running maximum of online softmax matters.
      q: data.normal([tokens, shape.heads * depth], dtype, 3),
      kv,
      kRope: data.normal([tokens, shape.rope], dtype),
      segments: Tensor.i32(segments),
    },
    outputs: {
      o: blank([tokens, shape.heads * shape.v], dtype),
      logSumExp: blank([shape.heads, tokens], 'f32'),
    },
    run: (on, t) => on.attention(t.q!, t.kv!, t.kRope!, t.segments!, shape, t.o!, t.logSumExp!),
    tolerance: (want) => ({
      o: relativeError(dtype, tokens) * largest(kv),
      logSumExp: relativeError('f32', depth) * largest(want.logSumExp!),
    }),
  };
}

/** Queries of the last tokens of each segment alone. */
function lastQueriesCase(
  heads: readonly [number, number, number, number],
  queries: number[],
  dtype: DType,
): Case {
  const all = forwardCase(heads, [0, 0, 40, 40, 257], dtype);
  const shape = shapeOf(heads);
  const rows = queries.at(-1)!;
  const { inputs, outputs, tolerance } = all;
  return {
    ...all,
    name: `${all.name}, queries ${queries}`,
    inputs: { ...inputs, q: inputs.q!.rowsView(0, rows), queries: Tensor.i32(queries) },
    outputs: {
      o: blank([rows, outputs.o!.cols], dtype),
      logSumExp:
        queries[0] === 0 ? blank([shape.heads, rows], 'f32') : Tensor.zeros([shape.heads, rows], 'f32'),
    },
    run: (on, t) => on.attention(t.q!, t.kv!, t.kRope!, t.segments!, shape, t.o!, t.logSumExp!, t.queries!),
    tolerance: tolerance!,
  };
}

function backwardCase(
  heads: readonly [number, number, number, number],
  segments: number[],
  dtype: DType,
): Case {
  const forward = forwardCase(heads, segments, dtype);
  const shape = shapeOf(heads);
  const { q, kv, kRope } = forward.inputs as { q: Tensor; kv: Tensor; kRope: Tensor };
  const dO = new Data(301).normal(forward.outputs.o!.shape, dtype);
  // What the forward pass left, from the reference for both.
  const kept = runOn(referenceBackend, forward);
  return {
    op: 'attentionBackward',
    name: forward.name,
    inputs: { ...forward.inputs, ...kept, dO },
    outputs: { dq: blank(q.shape, dtype), dkv: blank(kv.shape, dtype), dkRope: blank(kRope.shape, dtype) },
    run: (on, t) => {
      const saved = t as Tensors & Record<'q' | 'kv' | 'kRope' | 'o' | 'logSumExp' | 'segments', Tensor>;
      on.attentionBackward(t.dO!, saved, shape, t.dq!, t.dkv!, t.dkRope!);
    },
    tolerance: ({ dq, dkv, dkRope }) => {
      const error = relativeError(dtype, q.rows);
      // A gradient that cancels to nothing (a segment of one token) is wrong by the error of its two terms.
      const terms = largest(dO) * Math.max(largest(kv), largest(q)) * shape.scale;
      const bound = (t: Tensor) => error * Math.max(largest(t), terms);
      return { dq: bound(dq!), dkv: bound(dkv!), dkRope: bound(dkRope!) };
    },
  };
}
