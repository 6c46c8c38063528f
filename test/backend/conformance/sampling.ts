import { expect } from 'vitest';
import type { Backend } from '../../../src/tensor/backend.js';
import { Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import { blank, type Case, type Rule, ULP } from './harness.js';

/** [rows, vocabulary]: shorter than a vector, than a chunk of the sum, and beyond both. */
const LOGITS: readonly [number, number][] = [
  [1, 1],
  [3, 15],
  [2, 1029],
  [5, 32_003],
];

/** What choosing the next token begins with. */
export function* samplingOps(): Generator<Case | Rule> {
  for (const [rows, vocabulary] of LOGITS) {
    yield largestCase(rows, vocabulary);
    for (const temperature of [0.3, 1, 2]) yield weightsCase(rows, vocabulary, temperature);
  }
  yield { op: 'argmax', name: 'takes the first of several, and passes over what is no number', verify: ties };
  yield { op: 'softmaxWeights', name: 'has no sum where a logit is no number', verify: noNumbers };
}

/** Rounded to steps of 1/4, so that several are largest. */
function largestCase(rows: number, vocabulary: number): Case {
  const logits = new Data(601).normal([rows, vocabulary]);
  logits.data.set(Array.from(logits.data, (x) => Math.round(x * 4) / 4));
  return {
    op: 'argmax',
    name: `${rows} × ${vocabulary}`,
    inputs: { logits },
    outputs: { index: blank([rows], 'i32') },
    run: (on, t) => on.argmax(t.logits!, t.index!),
  };
}

function weightsCase(rows: number, vocabulary: number, temperature: number): Case {
  return {
    op: 'softmaxWeights',
    name: `${rows} × ${vocabulary}, temperature ${temperature}`,
    inputs: { logits: new Data(602).normal([rows, vocabulary], 'f32', 4) },
    outputs: { weights: blank([rows, vocabulary], 'f32'), sums: blank([rows, 2], 'f32') },
    run: (on, t) => on.softmaxWeights(t.logits!, temperature, t.weights!, t.sums!),
    // Three roundings before exp, which multiplies them by its argument, and those of exp's polynomial; the sum has as much of each.
    tolerance: ({ weights, sums }) => {
      const error = (w: number) => w * (8 + 3 * Math.abs(Math.log(Math.max(w, 1e-38)))) * ULP;
      const errors = Float64Array.from(weights!.data, error);
      const ofSum = (_: number, i: number) => {
        const row = errors.subarray(((i - 1) / 2) * vocabulary, ((i + 1) / 2) * vocabulary);
        return i % 2 === 0 ? 0 : row.reduce((a, b) => a + b, 0) + 64 * ULP * sums!.data[i]!;
      };
      return { weights: errors, sums: Float64Array.from(sums!.data, ofSum) };
    },
  };
}

function ties(backend: Backend): void {
  for (const at of [0, 5, 1023, 1024, 3000]) {
    const logits = Tensor.f32([1, 4001], new Float32Array(4001).fill(-2));
    logits.data[at] = 7;
    logits.data[4000] = 7;
    logits.data[at + 1] = Number.NaN;
    const index = Tensor.i32([-1]);
    backend.argmax(logits, index);
    expect(index.data[0]).toBe(at);
  }
}

function noNumbers(backend: Backend): void {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const at of [0, 40, 2049]) {
      const logits = Tensor.zeros([1, 2050], 'f32');
      logits.data[at] = bad;
      const [weights, sums] = [Tensor.zeros([1, 2050], 'f32'), Tensor.zeros([1, 2], 'f32')];
      backend.softmaxWeights(logits, 1, weights, sums);
      expect(sums.data[1], `${bad} at ${at}`).toBeNaN();
    }
  }
}
