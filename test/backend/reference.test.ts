import { describe, expect, it } from 'vitest';
import { referenceBackend as backend } from '../../src/backend/reference/index.js';
import type { Operand } from '../../src/spec/precision.js';
import type { AttentionShape, PackedWeight, QuantizedTensor, RouterShape } from '../../src/tensor/backend.js';
import { zeroQuantized } from '../../src/tensor/quantized.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { Data, ropeTable } from './data.js';

/**
 * Every backward op against central differences in FP64: (f(x+h) − f(x−h)) / 2h with h = 1e-5 is wrong by h²·f‴/6,
 * about 1e-11, plus rounding, 1e-16/h = 1e-11, so that 1e-6 of the largest gradient is a sharp line.
 */
const STEP = 1e-5;
const TOLERANCE = 1e-6;

const zeros = (shape: readonly number[]) => Tensor.zeros(shape, 'f64');
const like = (t: Tensor) => zeros(t.shape);

/** Σ a·b: with `b` random, the gradient of this sum exercises every element of `a`. */
function inner(a: Tensor, b: Tensor): number {
  return (a.data as Float64Array).reduce((sum, value, i) => sum + value * b.data[i]!, 0);
}

/** Central differences of `loss` by every element of `x`. */
function differences(x: Tensor, loss: () => number): Float64Array {
  return Float64Array.from(x.data, (value, i) => {
    x.data[i] = value + STEP;
    const above = loss();
    x.data[i] = value - STEP;
    const below = loss();
    x.data[i] = value;
    return (above - below) / (2 * STEP);
  });
}

/** Checks `gradient` of `loss` by `x`, relative to the largest element. */
function expectGradient(name: string, gradient: Tensor, x: Tensor, loss: () => number): void {
  const expected = differences(x, loss);
  const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  expect(largest, `${name}: the gradient must not vanish`).toBeGreaterThan(0);
  expected.forEach((want, i) => {
    const error = Math.abs(gradient.data[i]! - want) / largest;
    expect(error, `${name}[${i}]: got ${gradient.data[i]}, differences give ${want}`).toBeLessThan(TOLERANCE);
  });
}

describe('gradients of the reference backend against central differences in FP64', () => {
  it('rmsNorm: dx, and dweight is added to', () => {
    const data = new Data(1);
    const [x, weight, dy] = [
      data.normal([3, 10], 'f64'),
      data.normal([10], 'f64'),
      data.normal([3, 10], 'f64'),
    ];
    const [y, r, dx, dweight] = [like(x), zeros([3]), like(x), like(weight)];
    const loss = () => {
      backend.rmsNorm(x, weight, 1e-2, y, r);
      return inner(y, dy);
    };
    loss();
    backend.rmsNormBackward(dy, x, weight, r, dx, dweight);
    expectGradient('dx', dx, x, loss);
    expectGradient('dweight', dweight, weight, loss);
    const once = dweight.data.slice();
    loss();
    backend.rmsNormBackward(dy, x, weight, r, dx, dweight);
    expect(dweight.data).toEqual(once.map((value) => 2 * value));
  });

  for (const interleaved of [true, false]) {
    it(`rope: the inverse rotation, ${interleaved ? 'interleaved' : 'in halves'}`, () => {
      const data = new Data(2);
      const layout = { heads: 2, stride: 9, offset: 2, rope: 6, interleaved };
      const [x, dy] = [data.normal([4, 20], 'f64'), data.normal([4, 20], 'f64')];
      const [table, positions] = [ropeTable(7, 6, 'f64'), Tensor.i32([0, 3, 6, 1])];
      const loss = () => {
        const y = new Tensor(x.shape, 'f64', x.data.slice());
        backend.rope(y, table, positions, layout, false);
        return inner(y, dy);
      };
      const dx = new Tensor(dy.shape, 'f64', dy.data.slice());
      backend.rope(dx, table, positions, layout, true);
      expectGradient('dx', dx, x, loss);
    });
  }

  it('swiglu', () => {
    const data = new Data(3);
    const [gu, dh] = [data.normal([3, 14], 'f64', 2), data.normal([3, 7], 'f64')];
    const [h, dgu] = [like(dh), like(gu)];
    backend.swigluBackward(dh, gu, dgu);
    expectGradient('dgu', dgu, gu, () => {
      backend.swiglu(gu, h);
      return inner(h, dh);
    });
  });

  it('attention: dq, dkv, dkRope over three segments, one of a single token', () => {
    const data = new Data(4);
    const shape: AttentionShape = { heads: 2, nope: 3, rope: 2, v: 4, scale: 0.7 };
    const tokens = 9;
    const q = data.normal([tokens, 10], 'f64');
    const kv = data.normal([tokens, 14], 'f64');
    const kRope = data.normal([tokens, 2], 'f64');
    const dO = data.normal([tokens, 8], 'f64');
    const segments = Tensor.i32([0, 3, 4, 9]);
    const [o, logSumExp] = [like(dO), zeros([2, tokens])];
    const loss = () => {
      backend.attention(q, kv, kRope, segments, shape, o, logSumExp);
      return inner(o, dO);
    };
    loss();
    const [dq, dkv, dkRope] = [like(q), like(kv), like(kRope)];
    backend.attentionBackward(dO, { q, kv, kRope, o, logSumExp, segments }, shape, dq, dkv, dkRope);
    expectGradient('dq', dq, q, loss);
    expectGradient('dkv', dkv, kv, loss);
    expectGradient('dkRope', dkRope, kRope, loss);
  });

  const base = { experts: 6, topK: 2, groups: 1, topGroups: 1, scalingFactor: 2.5 };
  const routers: Record<string, RouterShape> = {
    'V3: sigmoid, normalised, 2 of 3 groups': {
      ...base,
      ...{ groups: 3, topGroups: 2, scoring: 'sigmoid', method: 'noaux_tc', normalize: true },
    },
    'sigmoid, not normalised': { ...base, scoring: 'sigmoid', method: 'noaux_tc', normalize: false },
    'V2: softmax, greedy': { ...base, scoring: 'softmax', method: 'greedy', normalize: false },
    'softmax, normalised, 1 of 3 groups': {
      ...base,
      ...{ groups: 3, scoring: 'softmax', method: 'group_limited_greedy', normalize: true },
    },
  };
  for (const [name, shape] of Object.entries(routers)) {
    it(`route, ${name}: dlogits with the balance loss`, () => checkRoute(shape));
  }

  it('unpermute: dx, dweights', () => {
    const data = new Data(6);
    const ids = data.choices(5, 2, 4);
    const [offsets, source, slot] = [
      Tensor.i32(new Int32Array(5)),
      Tensor.i32(new Int32Array(10)),
      like32(ids),
    ];
    backend.dispatchPlan(ids, offsets, source, slot);
    const [x, weights] = [data.normal([10, 3], 'f64'), data.normal([5, 2], 'f64')];
    const [dy, y] = [data.normal([5, 3], 'f64'), zeros([5, 3])];
    const [dx, dweights] = [like(x), like(weights)];
    backend.unpermuteBackward(dy, x, slot, weights, dx, dweights);
    const loss = () => {
      backend.unpermute(x, slot, weights, y);
      return inner(y, dy);
    };
    expectGradient('dx', dx, x, loss);
    expectGradient('dweights', dweights, weights, loss);
  });

  it('permute: unpermute without weights goes back', () => {
    const data = new Data(7);
    const ids = data.choices(5, 3, 4);
    const [offsets, source, slot] = [
      Tensor.i32(new Int32Array(5)),
      Tensor.i32(new Int32Array(15)),
      like32(ids),
    ];
    backend.dispatchPlan(ids, offsets, source, slot);
    const [x, dy] = [data.normal([5, 3], 'f64'), data.normal([15, 3], 'f64')];
    const [y, dx] = [like(dy), like(x)];
    backend.unpermute(dy, slot, undefined, dx);
    expectGradient('dx', dx, x, () => {
      backend.permute(x, source, y);
      return inner(y, dy);
    });
  });

  it('crossEntropy: dlogits, zero where ignored', () => {
    const data = new Data(8);
    const [logits, targets] = [data.normal([4, 7], 'f64', 3), Tensor.i32([2, -100, 6, 0])];
    const [losses, dlogits] = [zeros([4]), zeros([4, 7])];
    backend.crossEntropy(logits, targets, losses, dlogits, 0.3);
    expect(losses.data[1]).toBe(0);
    expectGradient('dlogits', dlogits, logits, () => {
      backend.crossEntropy(logits, targets, losses, undefined, 0.3);
      return 0.3 * (losses.data as Float64Array).reduce((a, b) => a + b, 0);
    });
  });

  it('embedding: rows that occur twice, and not at all', () => {
    const data = new Data(9);
    const [ids, table] = [Tensor.i32([3, 1, 3, 0]), data.normal([5, 4], 'f64')];
    const [y, dy, dtable] = [zeros([4, 4]), data.normal([4, 4], 'f64'), like(table)];
    backend.embeddingBackward(ids, dy, dtable);
    expectGradient('dtable', dtable, table, () => {
      backend.embedding(ids, table, y);
      return inner(y, dy);
    });
  });

  it('gemm: dgrad and wgrad of a plain and of a grouped weight', () => {
    checkLinear(undefined, [4, 5], 6);
    checkLinear(Tensor.i32([0, 2, 2, 6]), [4, 5], 6);
  });
});

/** A tensor of the same shape, i32. */
const like32 = (t: Tensor) => Tensor.zeros(t.shape, 'i32');

function checkRoute(shape: RouterShape): void {
  const data = new Data(5);
  const tokens = 7;
  const logits = data.normal([tokens, shape.experts], 'f64', 2);
  const bias = data.normal([shape.experts], 'f64', 0.1);
  const sequences = Tensor.i32([0, 4, 7]);
  const [ids, load] = [Tensor.zeros([tokens, shape.topK], 'i32'), Tensor.zeros([shape.experts], 'i32')];
  const [weights, balance, dlogits] = [zeros([tokens, shape.topK]), zeros([1]), like(logits)];
  const dweights = data.normal([tokens, shape.topK], 'f64');
  const factor = 0.8;
  backend.route(logits, bias, shape, ids, weights, load);
  const saved = { logits, ids: new Tensor(ids.shape, 'i32', ids.data.slice()), sequences };
  backend.routeBackward(dweights, saved, shape, factor, dlogits, balance);
  expectGradient('dlogits', dlogits, logits, () => {
    backend.route(logits, bias, shape, ids, weights, load);
    expect(ids.data, 'the step must not change the choice').toEqual(saved.ids.data);
    return inner(weights, dweights) + factor * balanceLoss(logits, saved.ids, [0, 4, 7], shape);
  });
  expect(balance.data[0]).toBeCloseTo(balanceLoss(logits, saved.ids, [0, 4, 7], shape), 12);
}

/** Σ_e f_e·P_e averaged over sequences, straight from [TR §2.1.2 eq. 17–20]. */
function balanceLoss(logits: Tensor, ids: Tensor, bounds: number[], shape: RouterShape): number {
  const { experts: E, topK: K, scoring } = shape;
  const s = (t: number, e: number) => {
    const z = logits.data[t * E + e]!;
    return scoring === 'sigmoid' ? 1 / (1 + Math.exp(-z)) : Math.exp(z);
  };
  let total = 0;
  for (let i = 0; i + 1 < bounds.length; i++) {
    const T = bounds[i + 1]! - bounds[i]!;
    for (let e = 0; e < E; e++) {
      let [f, P] = [0, 0];
      for (let t = bounds[i]!; t < bounds[i + 1]!; t++) {
        for (let k = 0; k < K; k++) if (ids.data[t * K + k] === e) f += E / (K * T);
        let sum = 0;
        for (let j = 0; j < E; j++) sum += s(t, j);
        P += s(t, e) / sum / T;
      }
      total += f * P;
    }
  }
  return total / (bounds.length - 1);
}

const FP32: Operand = { format: 'fp32', scale: 'fp32', granularity: 'tile' };

const operandOf = (x: Tensor): QuantizedTensor => {
  const q = zeroQuantized(x.rows, x.cols, FP32, 'f64');
  backend.quantize(x, q);
  return q;
};

function pack(w: Tensor, transposed: boolean): PackedWeight {
  const shape = w.shape as [number, number, number];
  const { data } = backend.packedSizes(shape, FP32, transposed, w.dtype);
  const packed = {
    operand: FP32,
    transposed,
    shape,
    data: zeros([data.elements]),
    scales: undefined,
  };
  expect(data.dtype).toBe('f64');
  backend.packWeight(w, packed);
  return packed;
}

function checkLinear(offsets: Tensor | undefined, [n, k]: [number, number], rows: number): void {
  const data = new Data(10);
  const groups = offsets ? offsets.size - 1 : 1;
  const [x, w] = [data.normal([rows, k], 'f64'), data.normal([groups, n, k], 'f64')];
  const [y, dy] = [zeros([rows, n]), data.normal([rows, n], 'f64')];
  const [dx, dw] = [like(x), like(w)];
  const options = offsets ? { offsets } : {};
  backend.gemm(operandOf(dy), pack(w, true), dx, options);
  backend.gemmWgrad(dy, operandOf(x), dw, { gradient: FP32, input: FP32 }, options);
  const loss = () => {
    backend.gemm(operandOf(x), pack(w, false), y, options);
    return inner(y, dy);
  };
  expectGradient('dx', dx, x, loss);
  expectGradient('dw', dw, w, loss);
}
