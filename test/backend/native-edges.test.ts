import { afterEach, describe, expect, it } from 'vitest';
import { addonProblem, loadAddon } from '../../src/backend/native/addon.js';
import { nativeBackend } from '../../src/backend/native/index.js';
import { referenceBackend } from '../../src/backend/reference/index.js';
import type { AttentionShape, Backend, RouterShape } from '../../src/tensor/backend.js';
import { type DType, Tensor } from '../../src/tensor/tensor.js';
import { Data } from './data.js';

/**
 * What the conformance suite leaves out: sizes beyond one internal block, NaN, nothing at all, wrong input, and the
 * same bits for every number of threads.
 */
const addon = loadAddon();
const LEVELS = addon ? [...new Set([addon.info().best, 'portable' as const])] : [];
const ROUTER: RouterShape = {
  experts: 32,
  topK: 4,
  groups: 4,
  topGroups: 2,
  scoring: 'sigmoid',
  method: 'noaux_tc',
  normalize: true,
  scalingFactor: 2.5,
};

const random = (shape: readonly number[], dtype: DType, seed: number): Tensor =>
  new Data(seed).normal(shape, dtype);

interface Attention {
  shape: AttentionShape;
  t: Record<'q' | 'kv' | 'kRope' | 'segments' | 'o' | 'lse' | 'dO' | 'dq' | 'dkv' | 'dkRope', Tensor>;
}

function attentionOf(tokens: number, bounds: number[], shape: AttentionShape, dtype: DType): Attention {
  const { heads, nope, rope, v } = shape;
  const make = (cols: number, seed: number) => random([tokens, cols], dtype, seed);
  const blank = (cols: number) => Tensor.zeros([tokens, cols], dtype);
  return {
    shape,
    t: {
      q: make(heads * (nope + rope), 1),
      kv: make(heads * (nope + v), 2),
      kRope: make(rope, 3),
      dO: make(heads * v, 4),
      segments: Tensor.i32(bounds),
      o: blank(heads * v),
      lse: Tensor.zeros([heads, tokens], 'f32'),
      dq: blank(heads * (nope + rope)),
      dkv: blank(heads * (nope + v)),
      dkRope: blank(rope),
    },
  };
}

/** Forward and backward; returns copies of all results. */
function runAttention(backend: Backend, { shape, t }: Attention): Record<string, Tensor> {
  backend.attention(t.q, t.kv, t.kRope, t.segments, shape, t.o, t.lse);
  backend.attentionBackward(t.dO, { ...t, logSumExp: t.lse }, shape, t.dq, t.dkv, t.dkRope);
  const copy = (x: Tensor) => new Tensor(x.shape, x.dtype, x.data.slice());
  return { o: copy(t.o), lse: copy(t.lse), dq: copy(t.dq), dkv: copy(t.dkv), dkRope: copy(t.dkRope) };
}

/** Largest difference relative to the largest value. */
function distance(a: Tensor, b: Tensor): number {
  let [difference, scale] = [0, 0];
  for (let i = 0; i < a.size; i++) {
    difference = Math.max(difference, Math.abs(a.data[i]! - b.data[i]!));
    scale = Math.max(scale, Math.abs(b.data[i]!));
  }
  return difference / scale;
}

const hasNaN = (x: Tensor): boolean => {
  if (x.dtype === 'bf16') return (x.data as Uint16Array).some((bits) => (bits & 0x7fff) > 0x7f80);
  return (x.data as Float32Array).some((value) => Number.isNaN(value));
};

const NAN: Partial<Record<DType, number>> = { f32: Number.NaN, bf16: 0x7fc0 };

if (!addon) describe.skip('native edges', () => it(addonProblem(), () => {}));

for (const level of LEVELS) {
  const backend = nativeBackend(addon!, undefined, level);

  describe(`sizes beyond one block: ${level}`, () => {
    const small = { nope: 8, rope: 4, v: 8, scale: 0.3 };
    const cases: [string, number, number[], AttentionShape][] = [
      ['a segment of more keys than fit the cache', 1200, [0, 1100, 1200], { heads: 1, ...small }],
      ['more heads than one wave', 40, [0, 33, 40], { heads: 19, ...small }],
      ['rows outside all segments', 90, [7, 50, 80], { heads: 2, ...small }],
    ];
    it.each(cases)('attention: %s', (_, tokens, bounds, shape) => {
      const want = runAttention(referenceBackend, attentionOf(tokens, bounds, shape, 'f32'));
      const got = runAttention(backend, attentionOf(tokens, bounds, shape, 'f32'));
      // Sums of up to 1100 products in FP32: about sqrt(1100) roundings of 2^-24, with a margin of five.
      for (const name of Object.keys(want))
        expect(distance(got[name]!, want[name]!), name).toBeLessThan(1e-5);
    });
  });

  describe(`NaN reaches the result: ${level}`, () => {
    const shape = { heads: 2, nope: 16, rope: 16, v: 32, scale: 0.2 };
    for (const dtype of ['f32', 'bf16'] as const) {
      it.each(['q', 'kv', 'kRope'] as const)(`attention of ${dtype}, in %s`, (name) => {
        const attention = attentionOf(70, [0, 70], shape, dtype);
        attention.t[name].data[3 * attention.t[name].cols] = NAN[dtype]!;
        const got = runAttention(backend, attention);
        expect(hasNaN(got.o!) && hasNaN(got.dq!) && hasNaN(got.dkv!)).toBe(true);
      });

      it(`attentionBackward of ${dtype}, in dO`, () => {
        const attention = attentionOf(70, [0, 70], shape, dtype);
        attention.t.dO.data[5] = NAN[dtype]!;
        const got = runAttention(backend, attention);
        expect(hasNaN(got.dq!) && hasNaN(got.dkv!)).toBe(true);
      });

      it(`rmsNorm and swiglu of ${dtype}`, () => {
        const x = random([4, 64], dtype, 1);
        x.data[10] = NAN[dtype]!;
        const [y, h] = [Tensor.zeros([4, 64], dtype), Tensor.zeros([4, 32], dtype)];
        backend.rmsNorm(x, Tensor.f32([64], new Float32Array(64).fill(1)), 1e-6, y, Tensor.zeros([4], 'f32'));
        backend.swiglu(x, h);
        expect(hasNaN(y) && hasNaN(h)).toBe(true);
      });
    }

    it('crossEntropy and adamw', () => {
      const logits = random([2, 100], 'f32', 1);
      logits.data[50] = Number.NaN;
      const [losses, dlogits] = [Tensor.zeros([2], 'f32'), Tensor.zeros([2, 100], 'bf16')];
      backend.crossEntropy(logits, Tensor.i32([3, 4]), losses, dlogits, 1);
      expect(Number.isNaN(losses.data[0])).toBe(true);
      expect(hasNaN(dlogits)).toBe(true);
      const [p, g] = [random([20], 'f32', 2), Tensor.f32([20], new Float32Array(20).fill(Number.NaN))];
      backend.adamw(p, g, Tensor.zeros([20], 'bf16'), Tensor.zeros([20], 'bf16'), {
        learningRate: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weightDecay: 0.1,
        gradientScale: 1,
        biasCorrection1: 0.1,
        biasCorrection2: 0.05,
      });
      expect(hasNaN(p)).toBe(true);
    });
  });

  describe(`nothing and nonsense: ${level}`, () => {
    it('accepts no rows', () => {
      const none = (cols: number, dtype: DType = 'bf16') => Tensor.zeros([0, cols], dtype);
      const attention = attentionOf(0, [0], { heads: 2, nope: 8, rope: 8, v: 8, scale: 1 }, 'bf16');
      runAttention(backend, attention);
      const [ids, weights] = [none(4, 'i32'), none(4, 'f32')];
      const load = Tensor.i32(new Int32Array(32).fill(7));
      backend.route(none(32, 'f32'), Tensor.zeros([32], 'f32'), ROUTER, ids, weights, load);
      expect([...load.data]).toEqual(new Array(32).fill(0));
      const offsets = Tensor.i32(new Int32Array(33).fill(7));
      backend.dispatchPlan(ids, offsets, Tensor.i32([]), none(4, 'i32'));
      expect([...offsets.data]).toEqual(new Array(33).fill(0));
      backend.permute(none(16), Tensor.i32([]), none(16));
      backend.unpermute(none(16), ids, weights, none(16));
      backend.unpermuteBackward(none(16), none(16), ids, weights, none(16), none(4, 'f32'));
      backend.rmsNorm(none(16), Tensor.zeros([16], 'f32'), 1e-6, none(16), Tensor.zeros([0], 'f32'));
      backend.crossEntropy(none(16, 'f32'), Tensor.i32([]), Tensor.zeros([0], 'f32'), none(16), 1);
      const sum = Tensor.f32([1], [5]);
      backend.sumOfSquares(Tensor.zeros([0], 'f32'), sum);
      expect(sum.data[0]).toBe(0);
    });

    it('refuses indices out of range and arrays that are too short, naming them', () => {
      const table = Tensor.zeros([10, 16], 'f32');
      const y = Tensor.zeros([2, 16], 'f32');
      expect(() => backend.embedding(Tensor.i32([3, 10]), table, y)).toThrow(
        /ids holds 10, outside \[0, 10\)/,
      );
      const attention = attentionOf(8, [0, 5, 4], { heads: 1, nope: 8, rope: 8, v: 8, scale: 1 }, 'f32');
      expect(() => runAttention(backend, attention)).toThrow(/segments descends at 2/);
      const short = Tensor.zeros([1, 16], 'f32');
      expect(() => backend.add(short, y, y)).toThrow(/add: a has 16 elements, needs 32/);
      expect(() => backend.add(Tensor.zeros([2, 16], 'bf16'), y, y)).toThrow(/add: a is bf16, expected f32/);
      const logits = Tensor.zeros([1, 16], 'f32');
      expect(() =>
        backend.crossEntropy(logits, Tensor.i32([16]), Tensor.zeros([1], 'f32'), undefined, 1),
      ).toThrow(/targets holds 16/);
    });
  });
}

describe.runIf(addon)('the same bits for every number of threads', () => {
  const threads = addon?.info().threads;
  afterEach(() => addon!.setThreads(threads!));

  const OPS: Record<string, (backend: Backend) => Tensor[]> = {
    attention: (backend) => {
      const shape = { heads: 3, nope: 32, rope: 16, v: 32, scale: 0.2 };
      return Object.values(runAttention(backend, attentionOf(500, [0, 300, 500], shape, 'bf16')));
    },
    latentAttention: (backend) => {
      const pages = {
        format: 'bf16',
        latent: 64,
        rope: 32,
        data: Tensor.zeros([47, 32 * 96 * 2], 'u8'),
      } as const;
      const [o, slots] = [
        Tensor.zeros([1, 2 * 64], 'bf16'),
        Tensor.i32(Int32Array.from({ length: 1500 }, (_, i) => i)),
      ];
      backend.latentWrite(random([1500, 64], 'bf16', 2), random([1500, 32], 'bf16', 3), slots, pages);
      const rows = {
        bounds: Tensor.i32([0, 1]),
        lengths: Tensor.i32([1499]),
        pages: Tensor.i32(Int32Array.from({ length: 47 }, (_, i) => i)),
        pageBounds: Tensor.i32([0, 47]),
      };
      backend.latentAttention(random([1, 2 * 96], 'bf16', 1), pages, rows, { heads: 2, scale: 0.2 }, o);
      return [o];
    },
    rmsNormBackward: (backend) => {
      const [dy, x, dx] = [
        random([999, 48], 'bf16', 1),
        random([999, 48], 'bf16', 2),
        Tensor.zeros([999, 48], 'bf16'),
      ];
      const [weight, r, dweight] = [random([48], 'f32', 3), random([999], 'f32', 4), random([48], 'f32', 5)];
      backend.rmsNormBackward(dy, x, weight, r, dx, dweight);
      return [dx, dweight];
    },
    embeddingBackward: (backend) => {
      const ids = Tensor.i32(Int32Array.from({ length: 4000 }, (_, i) => (i * i) % 7));
      const dtable = random([7, 200], 'f32', 1);
      backend.embeddingBackward(ids, random([4000, 200], 'bf16', 2), dtable);
      return [dtable];
    },
    sumOfSquares: (backend) => {
      const out = Tensor.zeros([1], 'f32');
      backend.sumOfSquares(random([500_001], 'f32', 1), out);
      return [out];
    },
    'route and its gradient': (backend) => {
      const logits = random([700, 32], 'f32', 1);
      const [ids, weights, load] = [
        Tensor.zeros([700, 4], 'i32'),
        Tensor.zeros([700, 4], 'f32'),
        Tensor.zeros([32], 'i32'),
      ];
      backend.route(logits, random([32], 'f32', 2), ROUTER, ids, weights, load);
      const [dlogits, loss] = [Tensor.zeros([700, 32], 'f32'), Tensor.zeros([1], 'f32')];
      const saved = { logits, ids, sequences: Tensor.i32([0, 256, 700]) };
      backend.routeBackward(random([700, 4], 'f32', 3), saved, ROUTER, 0.1, dlogits, loss);
      const [offsets, source, slot] = [
        Tensor.zeros([33], 'i32'),
        Tensor.zeros([2800], 'i32'),
        Tensor.zeros([700, 4], 'i32'),
      ];
      backend.dispatchPlan(ids, offsets, source, slot);
      return [ids, weights, load, dlogits, loss, offsets, source, slot];
    },
  };

  it.each(Object.keys(OPS))('%s', (name) => {
    const backend = nativeBackend(addon!);
    const bits = [1, 2, 5].map((count) => {
      addon!.setThreads(count);
      return OPS[name]!(backend).map((t) => Buffer.from(t.data.buffer).toString('base64'));
    });
    expect(bits[1]).toEqual(bits[0]);
    expect(bits[2]).toEqual(bits[0]);
  });
});
