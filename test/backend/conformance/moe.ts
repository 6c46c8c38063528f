import { expect } from 'vitest';
import { referenceBackend } from '../../../src/backend/reference/index.js';
import { WIRE_FORMATS, type Wire } from '../../../src/spec/precision.js';
import type { Backend, RouterShape } from '../../../src/tensor/backend.js';
import { type DType, Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import {
  allocate,
  blank,
  type Case,
  largest,
  type Rule,
  type Tensors,
  ULP,
  valueAt,
  valuesOf,
} from './harness.js';

const V3 = { scoring: 'sigmoid', method: 'noaux_tc', normalize: true, scalingFactor: 2.5 } as const;
const GREEDY = { scoring: 'softmax', method: 'greedy', normalize: false, scalingFactor: 1 } as const;
const LIMITED = {
  scoring: 'softmax',
  method: 'group_limited_greedy',
  normalize: false,
  scalingFactor: 16,
} as const;

const ROUTERS: readonly RouterShape[] = [
  { ...V3, experts: 256, topK: 8, groups: 8, topGroups: 4 },
  { ...V3, experts: 32, topK: 4, groups: 4, topGroups: 2 },
  { ...V3, experts: 6, topK: 1, groups: 1, topGroups: 1 },
  { ...V3, experts: 8, topK: 4, groups: 4, topGroups: 2 },
  { ...V3, experts: 21, topK: 5, groups: 3, topGroups: 3, normalize: false },
  { ...V3, experts: 16, topK: 3, groups: 4, topGroups: 2, scoring: 'softmax' },
  { ...GREEDY, experts: 64, topK: 6, groups: 1, topGroups: 1 },
  { ...GREEDY, experts: 7, topK: 7, groups: 1, topGroups: 1, normalize: true, scoring: 'sigmoid' },
  { ...LIMITED, experts: 160, topK: 6, groups: 8, topGroups: 3 },
  { ...LIMITED, experts: 12, topK: 2, groups: 4, topGroups: 1, normalize: true },
];

export function* moeOps(): Generator<Case | Rule> {
  yield* wires();
  for (const shape of ROUTERS) {
    for (const tokens of [1, 5, 133]) yield routeCase(shape, tokens, 'spread');
    yield routeCase(shape, 4, 'tied');
    yield routeCase(shape, 9, 'saturated');
  }
  yield { op: 'route', name: 'logits that are not finite still give K distinct experts', verify: nonFinite };
  for (const shape of ROUTERS) {
    for (const sequences of [
      [0, 1],
      [0, 20, 21, 133],
    ]) {
      yield routeBackwardCase(shape, sequences, 0.37);
    }
    yield routeBackwardCase(shape, [0, 9], 0);
  }
  for (const [tokens, topK, experts] of DISPATCHES) {
    yield planCase(tokens, topK, experts);
    for (const dtype of ['f32', 'bf16'] as const) {
      for (const width of [1, 33, 128]) yield* dispatches(tokens, topK, experts, width, dtype);
    }
  }
}

// ---- Gate ------------------------------------------------------------------------------------------------

const routerName = (s: RouterShape) =>
  `${s.method} ${s.scoring} ${s.topK} of ${s.experts} in ${s.topGroups}/${s.groups} groups` +
  `${s.normalize ? ', normalised' : ''}`;

/**
 * Logits that leave no doubt about the choice in FP32: multiples of 1/64 from a normal distribution, all equal, or so
 * large that sigmoids are exactly 0 or 1.
 */
function logitsOf(kind: 'spread' | 'tied' | 'saturated', tokens: number, experts: number): Tensor {
  const data = new Data(400);
  if (kind === 'spread') {
    const raw = data.normal([tokens, experts], 'f32', 2);
    return Tensor.f32(raw.shape, raw.data.map((x) => Math.round(x * 64) / 64) as Float32Array);
  }
  if (kind === 'tied') return Tensor.f32([tokens, experts], new Float32Array(tokens * experts).fill(0.5));
  const signs = data.integers([tokens, experts], 2);
  return Tensor.f32(signs.shape, signs.data.map((bit) => (bit ? 60 : -60)) as Int32Array);
}

function routeCase(shape: RouterShape, tokens: number, kind: 'spread' | 'tied' | 'saturated'): Case {
  const { experts, topK } = shape;
  const bias =
    kind === 'spread' ? new Data(401).uniform([experts], -0.2, 0.2) : Tensor.zeros([experts], 'f32');
  return {
    op: 'route',
    name: `${routerName(shape)}, ${tokens} tokens, ${kind}`,
    inputs: { logits: logitsOf(kind, tokens, experts), bias },
    outputs: {
      ids: blank([tokens, topK], 'i32'),
      weights: blank([tokens, topK], 'f32'),
      load: blank([experts], 'i32'),
    },
    run: (on, t) => on.route(t.logits!, t.bias!, shape, t.ids!, t.weights!, t.load!),
    // An exponential, the sum of E of them or of K scores, two divisions: all relative. Ids and loads are equal.
    tolerance: (want) => ({ weights: valuesOf(want.weights!).map((w) => (experts + 16) * ULP * w) }),
  };
}

function nonFinite(backend: Backend): void {
  for (const shape of ROUTERS) {
    const { experts, topK } = shape;
    const [logits, bias] = [allocate(backend, [3, experts], 'f32'), allocate(backend, [experts], 'f32')];
    bias.data.fill(0);
    logits.data.set(new Data(402).normal([3, experts]).data);
    logits.data.fill(Number.NaN, 0, experts);
    logits.data[experts + 1] = Number.NaN;
    logits.data[2 * experts + 2] = Number.POSITIVE_INFINITY;
    const [ids, load] = [allocate(backend, [3, topK], 'i32'), allocate(backend, [experts], 'i32')];
    backend.route(logits, bias, shape, ids, allocate(backend, [3, topK], 'f32'), load);
    for (let t = 0; t < 3; t++) {
      const row = [...ids.data.subarray(t * topK, (t + 1) * topK)];
      expect(new Set(row).size, `${routerName(shape)}: ${row}`).toBe(topK);
      expect(
        row.every((e) => e >= 0 && e < experts),
        `${routerName(shape)}: ${row}`,
      ).toBe(true);
    }
  }
}

function routeBackwardCase(shape: RouterShape, sequences: number[], factor: number): Case {
  const tokens = sequences[sequences.length - 1]!;
  const { experts, topK } = shape;
  const data = new Data(403);
  const forward = routeCase(shape, tokens, 'spread');
  const ids = Tensor.zeros([tokens, topK], 'i32');
  const { logits, bias } = forward.inputs as { logits: Tensor; bias: Tensor };
  const load = Tensor.zeros([experts], 'i32');
  referenceBackend.route(logits, bias, shape, ids, Tensor.zeros([tokens, topK], 'f32'), load);
  const dweights = data.normal([tokens, topK]);
  return {
    op: 'routeBackward',
    name: `${routerName(shape)}, sequences ${sequences}, factor ${factor}`,
    inputs: { dweights, logits, ids, sequences: Tensor.i32(sequences) },
    outputs: { dlogits: blank([tokens, experts], 'f32'), balanceLoss: blank([1], 'f32') },
    run: (on, t) => {
      const saved = { logits: t.logits!, ids: t.ids!, sequences: t.sequences! };
      on.routeBackward(t.dweights!, saved, shape, factor, t.dlogits!, t.balanceLoss!);
    },
    tolerance: (want) => ({
      // Differences of sums over E experts; none of their terms exceeds c·|dw| by much.
      dlogits:
        (experts + 16) * ULP * Math.max(largest(want.dlogits!), shape.scalingFactor * largest(dweights)),
      balanceLoss: (tokens + experts) * ULP * want.balanceLoss!.data[0]!,
    }),
  };
}

// ---- Dispatch --------------------------------------------------------------------------------------------

/** [tokens, choices per token, experts]: many empty experts, a single one, and more than one tile. */
const DISPATCHES: readonly [number, number, number][] = [
  [1, 1, 1],
  [1, 8, 256],
  [7, 2, 5],
  [133, 4, 32],
  [300, 1, 3],
];

/** What `dispatchPlan` gives for random choices. */
function planOf(tokens: number, topK: number, experts: number) {
  const ids = new Data(404).choices(tokens, topK, experts);
  const offsets = blank([experts + 1], 'i32');
  const [source, slot] = [blank([tokens * topK], 'i32'), blank([tokens, topK], 'i32')];
  referenceBackend.dispatchPlan(ids, offsets, source, slot);
  return { ids, source, slot };
}

function planCase(tokens: number, topK: number, experts: number): Case {
  return {
    op: 'dispatchPlan',
    name: `${tokens} tokens, ${topK} of ${experts}`,
    inputs: { ids: planOf(tokens, topK, experts).ids },
    outputs: {
      offsets: blank([experts + 1], 'i32'),
      source: blank([tokens * topK], 'i32'),
      slot: blank([tokens, topK], 'i32'),
    },
    run: (on, t) => on.dispatchPlan(t.ids!, t.offsets!, t.source!, t.slot!),
  };
}

function* dispatches(
  tokens: number,
  topK: number,
  experts: number,
  width: number,
  dtype: DType,
): Generator<Case> {
  const data = new Data(405);
  const name = `${tokens} tokens, ${topK} of ${experts}, width ${width}, ${dtype}`;
  const { source, slot } = planOf(tokens, topK, experts);
  const [x, dy] = [data.rough([tokens, width], dtype), data.normal([tokens, width], dtype)];
  const [rows, weights] = [data.rough([tokens * topK, width], dtype), data.uniform([tokens, topK], 0, 1)];
  yield {
    op: 'permute',
    name,
    inputs: { x, source },
    outputs: { out: blank([tokens * topK, width], dtype) },
    run: (on, t) => on.permute(t.x!, t.source!, t.out!),
  };
  for (const factors of [weights, undefined]) {
    yield {
      op: 'unpermute',
      name: factors ? name : `${name}, no weights`,
      inputs: { rows, slot, ...(factors && { factors }) } as Tensors,
      outputs: { y: blank([tokens, width], dtype) },
      run: (on, t) => on.unpermute(t.rows!, t.slot!, t.factors, t.y!),
      tolerance: { y: combineErrors(rows, slot, factors) },
    };
  }
  yield {
    op: 'unpermuteBackward',
    name,
    inputs: { dy, rows, slot, weights },
    outputs: { dx: blank(rows.shape, dtype), dweights: blank([tokens, topK], 'f32') },
    run: (on, t) => on.unpermuteBackward(t.dy!, t.rows!, t.slot!, t.weights!, t.dx!, t.dweights!),
    // dx is one product: equal. dweights sum `width` products.
    tolerance: { dweights: (width + 4) * ULP * width * largest(dy) * largest(rows) },
  };
}

/** Error of a weighted sum of K rows: (K + 2)·ULP·Σ|w·x|. */
function combineErrors(rows: Tensor, slot: Tensor, weights: Tensor | undefined): Float64Array {
  const { cols: width } = rows;
  const errors = new Float64Array(slot.rows * width);
  slot.data.forEach((row, pair) => {
    const token = Math.floor(pair / slot.cols);
    const factor = (slot.cols + 2) * ULP * (weights?.data[pair] ?? 1);
    for (let i = 0; i < width; i++) {
      errors[token * width + i]! += factor * Math.abs(valueAt(rows, row * width + i));
    }
  });
  return errors;
}

// ---- Combine ---------------------------------------------------------------------------------------------

const WIRES: readonly Wire[] = [
  ...WIRE_FORMATS.map((format) => ({ format })),
  { format: 'logfmt8', rounding: 'log' },
  { format: 'logfmt10', rounding: 'linear' },
];

/** Rounding alone, defined to the bit: equal. */
function* wires(): Generator<Case> {
  for (const wire of WIRES) {
    const x = new Data(208).rough([3, 256]);
    x.data[300] = Number.NEGATIVE_INFINITY;
    yield {
      op: 'throughWire',
      name: `infinity as ${wire.format} ${wire.rounding ?? ''}`,
      inputs: { x },
      outputs: { out: blank([3, 256], 'f32') },
      run: (on, t) => on.throughWire(t.x!, wire, t.out!),
    };
  }
  for (const wire of WIRES) {
    for (const dtype of ['f32', 'bf16'] as const) {
      for (const [rows, cols] of [
        [1, 128],
        [37, 256],
        [5, 200],
        [0, 128],
      ] as const) {
        const x = new Data(207).rough([rows, cols], dtype);
        yield {
          op: 'throughWire',
          name: `[${rows}, ${cols}] ${dtype} as ${wire.format} ${wire.rounding ?? ''}`,
          inputs: { x },
          outputs: { out: blank([rows, cols], dtype) },
          run: (on, t) => on.throughWire(t.x!, wire, t.out!),
        };
      }
    }
  }
}
