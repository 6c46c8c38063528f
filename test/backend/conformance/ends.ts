import { expect } from 'vitest';
import type { AdamWStep, Backend } from '../../../src/tensor/backend.js';
import { type DType, Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import { allocate, blank, type Case, type Rule, ULP, valueAt, valuesOf } from './harness.js';

/** Embedding, loss and optimizer. */
export function* endOps(): Generator<Case | Rule> {
  for (const dtype of ['f32', 'bf16'] as const) {
    for (const sizes of EMBEDDINGS) yield embeddingCase(sizes, dtype);
    for (const sizes of EMBEDDINGS) yield embeddingBackwardCase(sizes, dtype);
    for (const [rows, vocabulary] of LOGITS) {
      for (const spread of [1, 1000]) yield lossCase(rows, vocabulary, spread, dtype);
    }
    for (const size of [1, 1000, 4099]) yield adamwCase(size, dtype);
  }
  yield lossOnlyCase();
  yield* sumsOfSquares();
}

/** [tokens, vocabulary, width]. */
const EMBEDDINGS: readonly [number, number, number][] = [
  [1, 1, 1],
  [9, 4, 33],
  [200, 50, 64],
  [31, 4096, 128],
];

function embeddingCase([tokens, vocabulary, width]: [number, number, number], dtype: DType): Case {
  const data = new Data(500);
  return {
    op: 'embedding',
    name: `${tokens} of ${vocabulary}, width ${width}, ${dtype}`,
    inputs: { ids: data.integers([tokens], vocabulary), table: data.normal([vocabulary, width]) },
    outputs: { y: blank([tokens, width], dtype) },
    run: (on, t) => on.embedding(t.ids!, t.table!, t.y!),
  };
}

function embeddingBackwardCase([tokens, vocabulary, width]: [number, number, number], dtype: DType): Case {
  const data = new Data(501);
  const ids = data.integers([tokens], vocabulary);
  const [dy, before] = [data.normal([tokens, width], dtype), data.normal([vocabulary, width])];
  // Every element is the sum of what was there and its tokens' rows: (n + 1)·ULP·Σ|terms|, n at most all tokens.
  const errors = before.data.map((x) => (tokens + 1) * ULP * Math.abs(x)) as Float32Array;
  ids.data.forEach((id, t) => {
    for (let i = 0; i < width; i++) {
      errors[id * width + i]! += (tokens + 1) * ULP * Math.abs(valueAt(dy, t * width + i));
    }
  });
  return {
    op: 'embeddingBackward',
    name: `${tokens} of ${vocabulary}, width ${width}, ${dtype}, dtable is added to`,
    inputs: { ids, dy },
    outputs: { dtable: before },
    run: (on, t) => on.embeddingBackward(t.ids!, t.dy!, t.dtable!),
    tolerance: { dtable: errors },
  };
}

/** [rows, vocabulary]. */
const LOGITS: readonly [number, number][] = [
  [1, 1],
  [5, 7],
  [17, 1000],
  [3, 4099],
];

const SCALE = 0.125;

function lossCase(rows: number, vocabulary: number, spread: number, dtype: DType): Case {
  const data = new Data(502);
  const logits = data.normal([rows, vocabulary], 'f32', spread);
  const targets = data.integers([rows], vocabulary);
  if (rows > 2) targets.data[1] = -100;
  // Sum of V exponentials, whose arguments x − lse are rounded too; then a difference of numbers as large as these.
  const roundings = (vocabulary + 16) * ULP + 4 * spread * 4 * ULP;
  return {
    op: 'crossEntropy',
    name: `[${rows}, ${vocabulary}], spread ${spread}, gradient ${dtype}`,
    inputs: { logits, targets },
    outputs: { losses: blank([rows], 'f32'), dlogits: blank([rows, vocabulary], dtype) },
    run: (on, t) => on.crossEntropy(t.logits!, t.targets!, t.losses!, t.dlogits!, SCALE),
    tolerance: { losses: roundings, dlogits: SCALE * roundings },
  };
}

/** Without a gradient, every other row ignored. */
function lossOnlyCase(): Case {
  const { inputs, outputs } = lossCase(5, 7, 1, 'f32');
  return {
    op: 'crossEntropy',
    name: 'losses alone',
    inputs: { logits: inputs.logits!, targets: Tensor.i32([3, -1, 0, -100, 6]) },
    outputs: { losses: outputs.losses! },
    run: (on, t) => on.crossEntropy(t.logits!, t.targets!, t.losses!, undefined, SCALE),
    tolerance: { losses: (7 + 32) * ULP },
  };
}

function* sumsOfSquares(): Generator<Case | Rule> {
  for (const size of [1, 7, 4099, 100_003]) {
    yield {
      op: 'sumOfSquares',
      name: `${size} elements`,
      inputs: { x: new Data(503).rough([size]) },
      outputs: { out: blank([1], 'f32') },
      run: (on, t) => on.sumOfSquares(t.x!, t.out!),
      // Summed in doubles: only the rounding to FP32 at the end, which one step of the format covers.
      tolerance: { out: 0 },
    };
  }
  yield { op: 'sumOfSquares', name: 'is not finite if any element is not', verify: nonFinite };
}

function nonFinite(backend: Backend): void {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    for (const at of [0, 511, 1022]) {
      const [x, out] = [allocate(backend, [1023], 'f32'), allocate(backend, [1], 'f32')];
      x.data.fill(1);
      x.data[at] = bad;
      backend.sumOfSquares(x, out);
      expect(Number.isFinite(out.data[0]), `${bad} at ${at} gives ${out.data[0]}`).toBe(false);
    }
  }
}

/** Third step of training at the published betas and weight decay [TR §4.2]. */
const STEP: AdamWStep = {
  learningRate: 3e-3,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradientScale: 0.7,
  biasCorrection1: 1 - 0.9 ** 3,
  biasCorrection2: 1 - 0.95 ** 3,
};

function adamwCase(size: number, moments: DType): Case {
  const data = new Data(504);
  const [parameter, gradient] = [data.normal([size]), data.rough([size], 'f32', 0.01)];
  const m = data.normal([size], moments, 0.01);
  const v = data.uniform([size], 1e-6, 1e-3, moments);
  const errors = adamwErrors(valuesOf(parameter), valuesOf(gradient), valuesOf(m), valuesOf(v));
  return {
    op: 'adamw',
    name: `${size} elements, moments ${moments}`,
    inputs: { gradient },
    outputs: { parameter, m, v },
    run: (on, t) => on.adamw(t.parameter!, t.gradient!, t.m!, t.v!, STEP),
    tolerance: errors,
  };
}

/** A dozen roundings of the terms' magnitudes: m may cancel, v cannot. */
function adamwErrors(theta: Float64Array, gradient: Float64Array, m: Float64Array, v: Float64Array) {
  const { learningRate, beta1, beta2, weightDecay, gradientScale } = STEP;
  const few = 16 * ULP;
  const mean = m.map(
    (x, i) => few * (beta1 * Math.abs(x) + (1 - beta1) * gradientScale * Math.abs(gradient[i]!)),
  );
  const square = v.map((x, i) => few * (beta2 * x + (1 - beta2) * (gradientScale * gradient[i]!) ** 2));
  const parameter = theta.map((x, i) => {
    const root = Math.sqrt(square[i]! / few / STEP.biasCorrection2);
    return (
      learningRate * (mean[i]! / STEP.biasCorrection1 / root + few * weightDecay * Math.abs(x)) +
      ULP * Math.abs(x)
    );
  });
  return { m: mean, v: square, parameter };
}
