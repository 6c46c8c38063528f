import type { DType, Tensor } from '../../../src/tensor/tensor.js';
import { Tensor as T } from '../../../src/tensor/tensor.js';
import { Data, ropeTable } from '../data.js';
import { blank, type Case, ULP, valuesOf } from './harness.js';

const ACTIVATIONS: readonly DType[] = ['f32', 'bf16'];

/** [rows, columns]: single elements, less than a vector, odd, and many. */
const SHAPES: readonly [number, number][] = [
  [1, 1],
  [3, 7],
  [5, 64],
  [17, 257],
  [130, 96],
  [4, 1024],
];

/** Element-wise and row-wise ops. */
export function* rowOps(): Generator<Case> {
  for (const dtype of ACTIVATIONS) {
    for (const shape of SHAPES) {
      yield* copies(shape, dtype);
      yield* norms(shape, dtype);
      yield* gates(shape, dtype);
    }
    yield* rotations(dtype);
  }
}

function* copies(shape: [number, number], dtype: DType): Generator<Case> {
  const data = new Data(100);
  const name = `[${shape}] ${dtype}`;
  const [rows, cols] = shape;
  const [a, b] = [data.rough(shape, dtype), data.normal(shape, dtype)];
  // One rounding each: equal.
  yield {
    op: 'add',
    name,
    inputs: { a, b },
    outputs: { out: blank(shape, dtype) },
    run: (on, t) => on.add(t.a!, t.b!, t.out!),
  };
  yield {
    op: 'add',
    name: `${name} in place`,
    inputs: { a },
    outputs: { out: b },
    run: (on, t) => on.add(t.out!, t.a!, t.out!),
  };
  for (const to of ACTIVATIONS) {
    yield {
      op: 'cast',
      name: `${name} to ${to}`,
      inputs: { a },
      outputs: { out: blank(shape, to) },
      run: (on, t) => on.cast(t.a!, t.out!),
    };
  }
  yield {
    op: 'fill',
    name,
    inputs: {},
    outputs: { out: blank(shape, dtype) },
    run: (on, t) => on.fill(t.out!, 0.3),
  };
  const wide = data.normal([rows, cols + 5], dtype);
  yield {
    op: 'copyColumnsOut',
    name: `out ${name}`,
    inputs: { wide },
    outputs: { out: blank(shape, dtype) },
    run: (on, t) => on.copyColumnsOut(t.wide!, 3, t.out!),
  };
  yield {
    op: 'copyColumnsIn',
    name: `in ${name}, other columns stay`,
    inputs: { a },
    outputs: { out: wide },
    run: (on, t) => on.copyColumnsIn(t.a!, t.out!, 3),
  };
}

function* norms(shape: [number, number], dtype: DType): Generator<Case> {
  const data = new Data(101);
  const name = `[${shape}] ${dtype}`;
  const [rows, cols] = shape;
  const eps = 1e-6;
  const [x, dy] = [data.rough(shape, dtype), data.normal(shape, dtype)];
  const [weight, inverseRms] = [data.uniform([cols], 0.5, 2), data.uniform([rows], 0.1, 2)];
  // A sum of `cols` squares and a handful of roundings, all relative.
  const relative = (cols + 16) * ULP;
  yield {
    op: 'rmsNorm',
    name,
    inputs: { x, weight },
    outputs: { y: blank(shape, dtype), r: blank([rows], 'f32') },
    run: (on, t) => on.rmsNorm(t.x!, t.weight!, eps, t.y!, t.r!),
    tolerance: (want) => ({
      y: valuesOf(want.y!).map((y) => relative * Math.abs(y)),
      r: valuesOf(want.r!).map((r) => relative * r),
    }),
  };
  yield {
    op: 'rmsNormBackward',
    name: `${name}, dweight is added to`,
    inputs: { dy, x, weight, r: inverseRms },
    outputs: { dx: blank(shape, dtype), dweight: data.normal([cols]) },
    run: (on, t) => on.rmsNormBackward(t.dy!, t.x!, t.weight!, t.r!, t.dx!, t.dweight!),
    tolerance: () => normErrors(dy, x, weight, inverseRms),
  };
}

/** Error bounds of rmsNormBackward: sums of `cols` or `rows` terms, times the sum of the terms' magnitudes. */
function normErrors(dy: Tensor, x: Tensor, weight: Tensor, r: Tensor) {
  const { rows, cols } = x;
  const [upstream, input, gain] = [valuesOf(dy), valuesOf(x), valuesOf(weight)];
  const dx = new Float64Array(rows * cols);
  const dweight = new Float64Array(cols).fill(4 * ULP); // of the value that is added to
  for (let t = 0; t < rows; t++) {
    const inverse = r.data[t]!;
    let projection = 0;
    for (let i = t * cols; i < (t + 1) * cols; i++) {
      const product = Math.abs(upstream[i]! * input[i]! * inverse);
      projection += product * gain[i % cols]!;
      dweight[i % cols]! += (rows + 16) * ULP * product;
    }
    for (let i = t * cols; i < (t + 1) * cols; i++) {
      const magnitude =
        Math.abs(upstream[i]! * gain[i % cols]!) + Math.abs((input[i]! * inverse * projection) / cols);
      dx[i] = (cols + 16) * ULP * inverse * magnitude;
    }
  }
  return { dx, dweight };
}

function* gates([rows, inner]: [number, number], dtype: DType): Generator<Case> {
  const data = new Data(102);
  const name = `[${rows}, ${inner}] ${dtype}`;
  // Spread 4 with outliers of 200: exponentials overflow and vanish.
  const [gu, dh] = [data.rough([rows, 2 * inner], dtype, 4), data.normal([rows, inner], dtype)];
  const [x, d] = [valuesOf(gu), valuesOf(dh)];
  const gateOf = (i: number) => Math.floor(i / inner) * 2 * inner + (i % inner);
  /** |u|·σ(g)·(1 + |g|): what every intermediate of both directions stays below; a few roundings and an exponential. */
  const bound = (i: number) => {
    const g = x[gateOf(i)]!;
    const u = x[gateOf(i) + inner]!;
    return (32 * ULP * (1 + Math.abs(u)) * (1 + Math.abs(g))) / (1 + Math.exp(-g)) + 2 ** -100;
  };
  yield {
    op: 'swiglu',
    name,
    inputs: { gu },
    outputs: { h: blank([rows, inner], dtype) },
    run: (on, t) => on.swiglu(t.gu!, t.h!),
    tolerance: { h: Float64Array.from({ length: rows * inner }, (_, i) => bound(i)) },
  };
  const errors = new Float64Array(rows * 2 * inner);
  for (let i = 0; i < rows * inner; i++) {
    errors[gateOf(i)] = errors[gateOf(i) + inner] = bound(i) * Math.abs(d[i]!);
  }
  yield {
    op: 'swigluBackward',
    name,
    inputs: { gu, dh },
    outputs: { dgu: blank([rows, 2 * inner], dtype) },
    run: (on, t) => on.swigluBackward(t.dh!, t.gu!, t.dgu!),
    tolerance: { dgu: errors },
  };
}

function* rotations(dtype: DType): Generator<Case> {
  const data = new Data(103);
  const layouts = [
    { heads: 1, stride: 8, offset: 0, rope: 8, width: 8 },
    { heads: 3, stride: 24, offset: 16, rope: 8, width: 72 },
    { heads: 2, stride: 192, offset: 128, rope: 64, width: 384 },
    { heads: 2, stride: 7, offset: 1, rope: 2, width: 15 },
  ];
  const places = [0, 1, 2, 0, 1, 40, 41, 63, 5, 5, 5];
  for (const { width, ...layout } of layouts) {
    for (const interleaved of [true, false]) {
      for (const inverse of [false, true]) {
        const x = data.normal([places.length, width], dtype);
        const pairs = interleaved ? 'pairs' : 'halves';
        const turn = inverse ? 'back' : 'forth';
        yield {
          op: 'rope',
          name: `${layout.heads}×${layout.rope} of [${x.shape}] ${dtype}, ${pairs}, ${turn}`,
          inputs: { table: ropeTable(64, layout.rope), positions: T.i32(places) },
          outputs: { x },
          run: (on, t) => on.rope(t.x!, t.table!, t.positions!, { ...layout, interleaved }, inverse),
          // Two products and their sum, each at most the largest value.
          tolerance: { x: 4 * ULP * 2 * Math.max(...valuesOf(x).map(Math.abs)) },
        };
      }
    }
  }
}
