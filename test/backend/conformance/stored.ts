import { expect } from 'vitest';
import { referenceBackend } from '../../../src/backend/reference/index.js';
import { E4M3 } from '../../../src/numerics/minifloat.js';
import { WEIGHT_FORMATS, type WeightFormat } from '../../../src/spec/serving.js';
import type { Backend } from '../../../src/tensor/backend.js';
import type { StoredWeight, WeightPiece } from '../../../src/tensor/inference.js';
import { type DType, Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import { allocate, blank, type Case, type Rule, type Tensors, ULP, valuesOf } from './harness.js';

/** w [N, K] in a format, as one piece. */
export const encodePiece = referenceBackend.encodeWeight;

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

interface Sizes {
  m: number;
  /** Rows of the pieces of a group. */
  n: number[];
  k: number;
  offsets?: number[];
}

const SIZES: readonly Sizes[] = [
  { m: 1, n: [1], k: 1 },
  { m: 1, n: [16], k: 128 },
  { m: 1, n: [130], k: 256 },
  { m: 2, n: [37], k: 200 },
  { m: 3, n: [5, 19], k: 7 },
  { m: 5, n: [64, 32, 3], k: 160 },
  { m: 16, n: [48], k: 384 },
  { m: 17, n: [33], k: 129 },
  { m: 40, n: [80], k: 96 },
  { m: 67, n: [70, 9], k: 320 },
  { m: 6, n: [32, 16], k: 64, offsets: [0, 1, 1, 4, 6] },
  { m: 90, n: [24], k: 130, offsets: [0, 0, 40, 73, 90, 90] },
  // As many short groups as attention has heads: each has a last block of its own.
  { m: 64, n: [16], k: 64, offsets: Array.from({ length: 17 }, (_, g) => 4 * g) },
  { m: 0, n: [16], k: 32, offsets: [0, 0, 0] },
  { m: 0, n: [16], k: 32 },
];

export function* storedOps(): Generator<Case | Rule> {
  for (const format of WEIGHT_FORMATS) {
    for (const sizes of SIZES) yield projectCase(format, sizes, 'bf16', 'f32', false);
    yield projectCase(format, SIZES[5]!, 'f32', 'f32', true);
    yield projectCase(format, SIZES[9]!, 'f32', 'bf16', false);
    yield projectCase(format, SIZES[10]!, 'bf16', 'bf16', true);
    yield readRowsCase(format);
    for (const [rows, k] of ENCODED) {
      yield {
        op: 'encodeWeight',
        name: `${format}, ${rows}×${k}`,
        verify: (backend) => sameCodes(backend, format, rows, k),
      };
    }
    yield {
      op: 'project',
      name: `${format}: a row's result is the same alone and in any batch`,
      verify: (backend) => alone(backend, format),
    };
    yield {
      op: 'project',
      name: `${format}: NaN spoils its row only`,
      verify: (backend) => spoilt(backend, format),
    };
  }
  yield { op: 'project', name: 'fp8: NaN codes and subnormal codes', verify: oddCodes };
  yield { op: 'project', name: 'fp8: blocks count from the first row of the tensor', verify: fp8Rows };
}

/** Rows and columns of weights to encode: whole tiles, blocks and panels, and what is left of them. */
const ENCODED = [
  [16, 128],
  [130, 200],
  [3, 7],
  [300, 96],
] as const;

/** Codes and scales equal the reference's, for values of all sizes, zeros, ties and a NaN. */
function sameCodes(backend: Backend, format: WeightFormat, rows: number, k: number): void {
  const values = new Data(709).rough([rows, k], 'f32', 0.1).data as Float32Array;
  values.fill(0, 0, Math.min(k, 40));
  values.forEach((x, i) => {
    if (i % 3 === 1) values[i] = Math.round(x * 40) / 8; // ties
  });
  if (rows > 20) values[17 * k + 1] = Number.NaN;
  const want = referenceBackend.encodeWeight(format, values, k);
  const got = backend.encodeWeight(format, values, k);
  expect(got.rows).toBe(rows);
  expect(got.codes).toEqual(want.codes);
  expect(got.scales).toEqual(want.scales);
}

/** Equal to the bit: a code times its scale is rounded once. */
function readRowsCase(format: WeightFormat): Case {
  const sizes = { m: 0, n: [20, 33], k: 203 };
  const pieces = randomPieces(new Data(705), format, sizes);
  return {
    op: 'readRows',
    name: format,
    inputs: { ids: Tensor.i32([0, 52, 19, 20, 7, 35, 7]) },
    outputs: { out: blank([7, sizes.k], 'f32') },
    run: (on, t) => on.readRows(on.storeWeight(format, sizes.k, pieces), t.ids!, t.out!),
  };
}

/** Pieces of G groups of random rows, and their tensors. */
function randomPieces(data: Data, format: WeightFormat, { n, k, offsets }: Sizes): WeightPiece[][] {
  const groups = offsets ? offsets.length - 1 : 1;
  return Array.from({ length: groups }, () =>
    n.map((rows) => encodePiece(format, data.rough([rows, k], 'f32', 0.1).data as Float32Array, k)),
  );
}

function projectCase(
  format: WeightFormat,
  sizes: Sizes,
  input: DType,
  output: DType,
  accumulate: boolean,
): Case {
  const data = new Data(700);
  const { m, n, k, offsets } = sizes;
  const columns = n.reduce((sum, rows) => sum + rows, 0);
  const pieces = randomPieces(data, format, sizes);
  const x = data.rough([m, k], input);
  const before = accumulate ? data.normal([m, columns], output) : blank([m, columns], output);
  const run = (on: Backend, t: Tensors) =>
    on.project(t.x!, on.storeWeight(format, k, pieces), t.y!, {
      accumulate,
      ...(t.offsets && { offsets: t.offsets }),
    });
  let allowed: Float32Array | undefined; // the same for every backend
  return {
    op: 'project',
    name:
      `${format}: ${input} ${m}×${n.join('+')}×${k}${offsets ? ` rows ${offsets}` : ''} to ${output}` +
      `${accumulate ? ', added' : ''}`,
    inputs: { x, ...(offsets && { offsets: Tensor.i32(offsets) }) },
    outputs: { y: before },
    run,
    tolerance: () => {
      allowed ??= allowedError(pieces, format, k, x, offsets, before, accumulate);
      return { y: allowed };
    },
  };
}

/**
 * FP32 sums of k products and their scales, (k + 8)·ULP·Σ|x·w|; where x need not have been rounded to BF16, 2^-8 of it
 * more.
 */
function allowedError(
  pieces: readonly (readonly WeightPiece[])[],
  format: WeightFormat,
  k: number,
  x: Tensor,
  offsets: readonly number[] | undefined,
  before: Tensor,
  accumulate: boolean,
): Float32Array {
  const sums = Tensor.zeros(before.shape, 'f32');
  if (accumulate) sums.data.set(valuesOf(before).map(Math.abs));
  magnitudes(pieces, format, k, x, offsets, sums);
  const rounded = x.dtype === 'f32' && (format === 'bf16' || format === 'fp8');
  const relative = (k + 8) * ULP + (rounded ? 2 ** -8 : 0);
  return sums.data.map((sum) => relative * sum) as Float32Array;
}

/** sums += Σ|x|·|w|, both as the format holds them; x at most 1/127 larger by quantisation, which the factor covers. */
function magnitudes(
  pieces: readonly (readonly WeightPiece[])[],
  format: WeightFormat,
  k: number,
  x: Tensor,
  offsets: readonly number[] | undefined,
  sums: Tensor,
): void {
  const w = referenceBackend.storeWeight(format, k, pieces);
  const identity = Tensor.zeros([k, k], 'f32');
  for (let i = 0; i < k; i++) identity.data[i * k + i] = 1;
  const absolute = Tensor.f32(
    x.shape,
    valuesOf(x).map((value) => Math.abs(value) * 1.1) as unknown as number[],
  );
  const groups = pieces.map((group) => {
    const dense = Tensor.zeros([k, w.n], 'f32');
    referenceBackend.project(identity, referenceBackend.storeWeight(format, k, [group]), dense);
    const rows = new Float32Array(w.n * k);
    for (let n = 0; n < w.n; n++)
      for (let i = 0; i < k; i++) rows[n * k + i] = Math.abs(dense.data[i * w.n + n]!);
    return [encodePiece('fp32', rows, k)];
  });
  const options = { accumulate: true, ...(offsets && { offsets: Tensor.i32([...offsets]) }) };
  referenceBackend.project(absolute, referenceBackend.storeWeight('fp32', k, groups), sums, options);
}

/** Copies into memory of the backend. */
function owned(backend: Backend, t: Tensor): Tensor {
  const copy = allocate(backend, t.shape, t.dtype);
  copy.data.set(t.data);
  return copy;
}

function run(backend: Backend, w: StoredWeight, x: Tensor, offsets?: number[]): Float32Array {
  const y = allocate(backend, [x.rows, w.n], 'f32');
  backend.project(owned(backend, x), w, y, offsets && { offsets: owned(backend, Tensor.i32(offsets)) });
  return y.data as Float32Array;
}

/** What speculative decoding rests on: verifying rows together gives the bits of decoding them one by one. */
function alone(backend: Backend, format: WeightFormat): void {
  const [n, k] = [41, 170];
  const data = new Data(701);
  const w = backend.storeWeight(format, k, randomPieces(data, format, { m: 0, n: [n], k }));
  const pair = backend.storeWeight(format, k, [w.pieces[0]!, w.pieces[0]!]);
  const x = data.rough([75, k], 'f32');
  const single = Array.from({ length: x.rows }, (_, m) => run(backend, w, x.rowsView(m, m + 1)));
  for (const count of [2, 3, 4, 5, 7, 8, 12, 16, 17, 31, 32, 33, 70]) {
    const from = count % 7 && Math.min(count % 7, x.rows - count);
    const rows = x.rowsView(from, from + count);
    const results: [string, Float32Array][] = [
      [`of ${count}`, run(backend, w, rows)],
      [`of ${count} in groups`, run(backend, pair, rows, [0, count >> 1, count])],
    ];
    for (const [where, y] of results) {
      for (let m = 0; m < count; m++) {
        expectSame(`row ${m} ${where}`, y.subarray(m * n, (m + 1) * n), single[from + m]!);
      }
    }
  }
}

function expectSame(where: string, got: Float32Array, want: Float32Array): void {
  const n = want.findIndex((value, i) => !Object.is(value, got[i]));
  if (n >= 0) expect.fail(`${where}, column ${n}: got ${got[n]}, expected ${want[n]}`);
}

function spoilt(backend: Backend, format: WeightFormat): void {
  const [n, k] = [20, 260];
  const data = new Data(702);
  const w = data.normal([n, k]).data as Float32Array;
  if (format !== 'fp8') w[3 * k + 200] = Number.NaN; // a block of fp8 takes its other rows along
  const weight = backend.storeWeight(format, k, [[encodePiece(format, w, k)]]);
  const x = data.normal([6, k]);
  x.data[2 * k + 7] = Number.NaN;
  const y = run(backend, weight, x);
  for (let m = 0; m < 6; m++) {
    for (let r = 0; r < n; r++) {
      const bad = m === 2 || (r === 3 && format !== 'fp8');
      expect(Number.isNaN(y[m * n + r]), `${format}: row ${m}, column ${r} is ${y[m * n + r]}`).toBe(bad);
    }
  }
}

/** Every E4M3 code as a weight of its own row, times 1. */
function oddCodes(backend: Backend): void {
  const k = 5;
  const codes = new Uint8Array(256 * k);
  for (let code = 0; code < 256; code++) codes[code * k] = code;
  const scales = bytesOf(Float32Array.of(2, 0.5));
  const w = backend.storeWeight('fp8', k, [[{ rows: 256, first: 0, codes, scales }]]);
  for (const m of [1, 3]) {
    const x = Tensor.f32(
      [m, k],
      Array.from({ length: m * k }, (_, i) => (i % k === 0 ? 1 : 3)),
    );
    const y = run(backend, w, x);
    for (let code = 0; code < 256; code++) {
      const want = E4M3.decode(code) * (code < 128 ? 2 : 0.5);
      expect(y[(m - 1) * 256 + code]! + 0, `code ${code}`).toBe(want + 0);
    }
  }
}

function fp8Rows(backend: Backend): void {
  const [rows, k] = [300, 256];
  const whole = encodePiece('fp8', new Data(703).rough([rows, k]).data as Float32Array, k);
  const x = new Data(704).normal([2, k], 'bf16');
  const all = run(backend, backend.storeWeight('fp8', k, [[whole]]), x);
  const [from, count] = [100, 90];
  const part = { ...whole, rows: count, first: from, codes: whole.codes.subarray(from * k) };
  const y = run(backend, backend.storeWeight('fp8', k, [[part]]), x);
  for (let m = 0; m < 2; m++) {
    const want = all.subarray(m * rows + from, m * rows + from + count);
    expectSame(`row ${m}`, y.subarray(m * count, (m + 1) * count), want);
  }
}
