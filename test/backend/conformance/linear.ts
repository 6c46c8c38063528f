import { expect } from 'vitest';
import { referenceBackend } from '../../../src/backend/reference/index.js';
import type { Accumulator, Operand } from '../../../src/spec/precision.js';
import type { Backend, PackedWeight, QuantizedTensor } from '../../../src/tensor/backend.js';
import { isNarrow, quantizedShapes, zeroQuantized } from '../../../src/tensor/quantized.js';
import { type DType, Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import { allocate, blank, type Case, type Rule, type Tensors, ULP, valuesOf } from './harness.js';

const operand = (name: string): Operand => {
  const [format, scale = 'fp32', granularity = 'tile'] = name.split('/');
  return { format, scale, granularity } as Operand;
};

const PER_TILE = ['e4m3', 'e4m3/pow2', 'e5m2', 'e5m2/pow2', 'e5m6', 'e5m6/pow2'];
const PER_TENSOR = ['e4m3/fp32/tensor', 'e5m2/pow2/tensor', 'e5m6/fp32/tensor', 'e5m6/pow2/tensor'];
const NARROW = [...PER_TILE, ...PER_TENSOR];

/** Activation and weight of a GEMM: those of the recipes first, then what an experiment may combine. */
const PAIRS: readonly [string, string][] = [
  ['fp32', 'fp32'],
  ['bf16', 'bf16'],
  ['e4m3', 'e4m3'],
  ['e4m3/pow2', 'e4m3'],
  ['e5m6/pow2', 'e4m3'],
  ['e5m6', 'e5m6'],
  ['e5m2', 'e4m3/pow2'],
  ['e5m6/pow2', 'e5m6/pow2'],
  ['bf16', 'e4m3'],
  ['e4m3', 'bf16'],
  ['e4m3/fp32/tensor', 'e4m3/fp32/tensor'],
  ['e5m6/pow2/tensor', 'e4m3/pow2/tensor'],
];

const FP22: readonly Accumulator[] = [
  { kind: 'fp22', promoteEvery: 128 },
  { kind: 'fp22', promoteEvery: null },
];

/** Where both scales are per tensor, or one is and the other operand has none, one register takes the contraction. */
const FP22_PAIRS: readonly [string, string][] = [
  ['e4m3', 'e4m3'],
  ['e4m3/fp32/tensor', 'e4m3/fp32/tensor'],
  ['e4m3/fp32/tensor', 'e5m2'],
  ['e5m6/pow2', 'e4m3'],
  ['e5m6/pow2/tensor', 'e5m6/fp32/tensor'],
  ['bf16', 'e4m3/fp32/tensor'],
  ['e5m2/pow2', 'bf16'],
];

export function* linearOps(): Generator<Case | Rule> {
  yield* quantizes();
  yield* dequantizes();
  yield* gemms();
  yield* wgrads();
  yield* hopper();
}

// ---- Quantise and back -----------------------------------------------------------------------------------

const MATRICES: readonly [number, number][] = [
  [1, 1],
  [1, 128],
  [3, 200],
  [7, 100],
  [33, 384],
  [130, 257],
];

/** Tensors of an operand under the names that `quantizedOf` finds again. */
const partsOf = (name: string, q: QuantizedTensor): Tensors => ({
  [name]: q.codes,
  ...(q.scales && { [`${name}Scales`]: q.scales }),
});

const quantizedOf = (t: Tensors, name: string, op: Operand): QuantizedTensor => ({
  operand: op,
  codes: t[name]!,
  scales: t[`${name}Scales`],
});

function* quantizes(): Generator<Case | Rule> {
  for (const name of ['fp32', 'bf16', ...NARROW]) {
    for (const dtype of ['f32', 'bf16'] as const) {
      for (const shape of MATRICES) yield quantizeCase(name, shape, dtype);
    }
  }
  yield {
    op: 'quantize',
    name: 'a tile with NaN or infinity turns into NaN, its neighbours do not',
    verify: nonFinite,
  };
  yield { op: 'quantize', name: 'with one scale, NaN or infinity turns all into NaN', verify: allNonFinite };
}

function quantizeCase(name: string, [rows, cols]: [number, number], dtype: DType): Case {
  const op = operand(name);
  const x = new Data(200).rough([rows, cols], dtype);
  if (rows > 2) x.data.fill(0, cols, 2 * cols); // a row of zeros: scale 1
  const { codes, scales } = quantizedShapes(rows, cols, op);
  const out = {
    operand: op,
    codes: blank(codes.shape, codes.dtype),
    scales: scales && blank(scales.shape, 'f32'),
  };
  return {
    op: 'quantize',
    name: `[${rows}, ${cols}] ${dtype} to ${name}`,
    inputs: { x },
    outputs: partsOf('out', out),
    run: (on, t) => on.quantize(t.x!, quantizedOf(t, 'out', op)),
    // Codes and scales follow from IEEE division and rounding: equal.
  };
}

function nonFinite(backend: Backend): void {
  for (const name of PER_TILE) {
    const op = operand(name);
    const x = new Data(201).normal([4, 300]);
    x.data[5] = Number.NaN;
    x.data[300 + 130] = Number.POSITIVE_INFINITY;
    const { codes, scales } = quantizedShapes(4, 300, op);
    const q = {
      operand: op,
      codes: allocate(backend, codes.shape, codes.dtype),
      scales: scales && allocate(backend, scales.shape, 'f32'),
    };
    const [input, out] = [allocate(backend, [4, 300], 'f32'), allocate(backend, [4, 300], 'f32')];
    input.data.set(x.data);
    backend.quantize(input, q);
    backend.dequantize(q, out);
    for (let i = 0; i < out.size; i++) {
      const spoilt = i < 128 || (i >= 300 + 128 && i < 300 + 256);
      expect(Number.isNaN(out.data[i]), `${name}: element ${i} is ${out.data[i]}`).toBe(spoilt);
    }
  }
}

function allNonFinite(backend: Backend): void {
  for (const name of PER_TENSOR) {
    const op = operand(name);
    const q = zeroQuantized(2, 200, op);
    const [input, out] = [allocate(backend, [2, 200], 'f32'), allocate(backend, [2, 200], 'f32')];
    input.data.set(new Data(201).normal([2, 200]).data);
    input.data[7] = Number.NEGATIVE_INFINITY;
    backend.quantize(input, q);
    backend.dequantize(q, out);
    expect(out.data.every(Number.isNaN), name).toBe(true);
  }
}

function* dequantizes(): Generator<Case> {
  for (const name of ['fp32', 'bf16', ...NARROW]) {
    const op = operand(name);
    for (const dtype of ['f32', 'bf16'] as const) {
      for (const [rows, cols] of MATRICES) {
        const q = quantized(new Data(202).rough([rows, cols]), op);
        yield {
          op: 'dequantize',
          name: `[${rows}, ${cols}] ${name} to ${dtype}`,
          inputs: partsOf('q', q),
          outputs: { out: blank([rows, cols], dtype) },
          // One FP32 product, then at most one rounding to BF16: equal.
          run: (on, t) => on.dequantize(quantizedOf(t, 'q', op), t.out!),
        };
      }
    }
  }
}

/** x in an operand's format, by the reference. */
function quantized(x: Tensor, op: Operand): QuantizedTensor {
  const q = zeroQuantized(x.rows, x.cols, op);
  referenceBackend.quantize(x, q);
  return q;
}

// ---- Products --------------------------------------------------------------------------------------------

interface Sizes {
  m: number;
  n: number;
  k: number;
  /** Row bounds of the groups; one group without. */
  offsets?: number[];
}

const SIZES: readonly Sizes[] = [
  { m: 1, n: 1, k: 1 },
  { m: 1, n: 128, k: 128 },
  { m: 3, n: 5, k: 7 },
  { m: 17, n: 130, k: 200 },
  { m: 65, n: 96, k: 256 },
  { m: 150, n: 300, k: 129 },
  { m: 20, n: 33, k: 160, offsets: [0, 7, 7, 7, 20] },
  { m: 300, n: 48, k: 64, offsets: [0, 0, 150, 153, 300, 300] },
  { m: 5, n: 16, k: 32, offsets: [0, 5] },
  { m: 0, n: 16, k: 32, offsets: [0, 0, 0] },
];

const sizeName = ({ m, n, k, offsets }: Sizes) => `${m}×${n}×${k}${offsets ? ` rows ${offsets}` : ''}`;

function* gemms(): Generator<Case> {
  for (const [input, weight] of PAIRS) {
    for (const sizes of SIZES) {
      for (const transposed of [false, true]) {
        const output = { dtype: 'f32' as DType, accumulate: false };
        yield gemmCase(input, weight, sizes, transposed, output);
      }
    }
    for (const output of [
      { dtype: 'bf16' as DType, accumulate: false },
      { dtype: 'f32' as DType, accumulate: true },
      { dtype: 'bf16' as DType, accumulate: true },
    ]) {
      yield gemmCase(input, weight, SIZES[3]!, false, output);
      yield gemmCase(input, weight, SIZES[6]!, true, output);
    }
  }
}

function gemmCase(
  input: string,
  weight: string,
  sizes: Sizes,
  transposed: boolean,
  output: { dtype: DType; accumulate: boolean },
): Case {
  const data = new Data(203);
  const { m, n, k, offsets } = sizes;
  const groups = offsets ? offsets.length - 1 : 1;
  const [inner, outer] = transposed ? [n, k] : [k, n];
  const [aType, wType] = [operand(input), operand(weight)];
  const a = quantized(data.rough([m, inner]), aType);
  const w = data.rough([groups, n, k]);
  const before = output.accumulate ? data.normal([m, outer], output.dtype) : blank([m, outer], output.dtype);
  const product = (on: Backend, q: QuantizedTensor, packed: PackedWeight, out: Tensor, bounds?: Tensor) =>
    on.gemm(q, packed, out, { accumulate: output.accumulate, ...(bounds && { offsets: bounds }) });
  return {
    op: 'gemm',
    name:
      `${input} × ${weight} ${transposed ? 'transposed ' : ''}${sizeName(sizes)}` +
      `${output.accumulate ? ', added' : ''}${output.dtype === 'f32' ? '' : `, to ${output.dtype}`}`,
    inputs: { ...partsOf('a', a), w, ...(offsets && { offsets: Tensor.i32(offsets) }) },
    outputs: { out: before },
    run: (on, t) =>
      product(on, quantizedOf(t, 'a', aType), pack(on, t.w!, wType, transposed), t.out!, t.offsets),
    tolerance: () => {
      // FP32 sums of `inner` products, their scales, and one sum more: (inner + 8)·ULP·Σ|a·w|.
      const sums = Tensor.zeros([m, outer], 'f32');
      if (output.accumulate) sums.data.set(valuesOf(before).map(Math.abs));
      const bounds = offsets && Tensor.i32(offsets);
      product(referenceBackend, magnitudes(a), magnitudeOf(w, wType, transposed), sums, bounds);
      return { out: sums.data.map((sum) => (inner + 8) * ULP * sum) as Float32Array };
    },
  };
}

/** w [G, N, K] packed by `on`. */
function pack(on: Backend, w: Tensor, op: Operand, transposed: boolean): PackedWeight {
  const shape = w.shape as [number, number, number];
  const { data, scales } = on.packedSizes(shape, op, transposed);
  const packed = {
    operand: op,
    transposed,
    shape,
    data: allocate(on, [data.elements], data.dtype),
    scales: scales > 0 ? allocate(on, [scales], 'f32') : undefined,
  };
  on.packWeight(w, packed);
  return packed;
}

const FP32 = operand('fp32');

/** |a| as an FP32 operand. */
function magnitudes(a: QuantizedTensor): QuantizedTensor {
  const out = Tensor.zeros([a.codes.rows, a.codes.cols], 'f32');
  referenceBackend.dequantize(a, out);
  return {
    operand: FP32,
    codes: Tensor.f32(out.shape, out.data.map(Math.abs) as Float32Array),
    scales: undefined,
  };
}

/** |w| as a packed FP32 weight: rounding to `op` moves it by at most 2^-2 (E5M2), which a factor covers. */
function magnitudeOf(w: Tensor, op: Operand, transposed: boolean): PackedWeight {
  const slack = isNarrow(op) ? 1.25 : 1;
  const absolute = Tensor.f32(w.shape, w.data.map((x) => slack * Math.abs(x)) as Float32Array);
  return pack(referenceBackend, absolute, FP32, transposed);
}

/** How x was saved, and the operands that dy and x are brought to. */
const WGRADS: readonly [string, string, string][] = [
  ['fp32', 'fp32', 'fp32'],
  ['bf16', 'bf16', 'bf16'],
  ['e4m3', 'e4m3', 'e4m3'],
  ['e4m3/pow2', 'e4m3', 'e4m3/pow2'],
  ['e5m6/pow2', 'e4m3', 'e5m6/pow2'],
  ['e5m6', 'e5m2', 'e5m6'],
  ['bf16', 'e5m2/pow2', 'e4m3'],
  ['e4m3', 'bf16', 'bf16'],
  ['bf16', 'e4m3', 'bf16'],
  ['e4m3/fp32/tensor', 'e4m3/fp32/tensor', 'e4m3/fp32/tensor'],
  ['e5m6/pow2/tensor', 'e4m3', 'e5m6/pow2/tensor'],
];

function* wgrads(): Generator<Case> {
  for (const formats of WGRADS) {
    for (const sizes of SIZES) {
      for (const dtype of ['f32', 'bf16'] as const) {
        yield wgradCase(formats, sizes, dtype, false);
      }
      yield wgradCase(formats, sizes, 'bf16', true);
    }
  }
}

function wgradCase(
  [saved, gradient, input]: [string, string, string],
  sizes: Sizes,
  dtype: DType,
  overwrite: boolean,
): Case {
  const data = new Data(204);
  const { m, n, k, offsets } = sizes;
  const groups = offsets ? offsets.length - 1 : 1;
  const savedType = operand(saved);
  const operands = { gradient: operand(gradient), input: operand(input) };
  const dy = data.rough([m, n], dtype);
  const x = quantized(data.rough([m, k]), savedType);
  const before = data.normal([groups, n, k]);
  const bounds = offsets && Tensor.i32(offsets);
  const options = { overwrite, ...(bounds && { offsets: bounds }) };
  return {
    op: 'gemmWgrad',
    name: `dy ${dtype} as ${gradient}, x ${saved} as ${input}, ${sizeName(sizes)}${overwrite ? ', overwriting' : ''}`,
    inputs: { dy, ...partsOf('x', x), ...(bounds && { offsets: bounds }) },
    outputs: { dw: before },
    run: (on, t) => on.gemmWgrad(t.dy!, quantizedOf(t, 'x', savedType), t.dw!, operands, options),
    tolerance: () => {
      // As for gemm, over the m rows; both operands may have been rounded up, by 2^-2 at most.
      const sums = Tensor.f32(before.shape, before.data.map(Math.abs) as Float32Array);
      const left = Tensor.f32(dy.shape, valuesOf(dy).map(Math.abs));
      referenceBackend.gemmWgrad(left, magnitudes(x), sums, { gradient: FP32, input: FP32 }, options);
      return { dw: sums.data.map((sum) => (m + 8) * ULP * 1.25 ** 2 * sum) as Float32Array };
    },
  };
}

// ---- Hopper's accumulator ----------------------------------------------------------------------------------

/** The emulation is slow in TypeScript: contractions of 0 to 300 and blocks of more than one task, no more. */
const FP22_SIZES: readonly Sizes[] = [
  { m: 1, n: 1, k: 1 },
  { m: 3, n: 5, k: 7 },
  { m: 7, n: 20, k: 300 },
  { m: 66, n: 130, k: 33 },
  { m: 20, n: 33, k: 160, offsets: [0, 7, 7, 7, 20] },
  { m: 300, n: 17, k: 9, offsets: [0, 0, 150, 153, 300, 300] },
  { m: 0, n: 16, k: 32, offsets: [0, 0, 0] },
];

/** Integer arithmetic but for the scales, and these in one order: equal. */
function* hopper(): Generator<Case> {
  for (const accumulator of FP22) {
    for (const [left, right] of FP22_PAIRS) {
      for (const sizes of FP22_SIZES) {
        for (const transposed of [false, true]) yield hopperCase(left, right, sizes, accumulator, transposed);
        yield hopperWgradCase(left, right, sizes, accumulator);
      }
    }
    for (const spread of [1e-30, 1e30, Number.NaN]) {
      yield hopperCase('bf16', 'e4m3', FP22_SIZES[2]!, accumulator, false, spread);
      yield hopperWgradCase('bf16', 'e4m3', FP22_SIZES[3]!, accumulator, spread);
    }
  }
}

/** Data whose products lie beyond what FP32 arithmetic leaves exact, or are NaN. */
function extreme(x: Tensor, spread: number): Tensor {
  if (spread === 1) return x;
  const factor = (i: number) =>
    Number.isNaN(spread) ? (i === 70 ? spread : 1) : spread ** (1 + (i % 5) / 20);
  return Tensor.f32(
    x.shape,
    Float64Array.from(valuesOf(x), (value, i) => value * factor(i)),
  );
}

const fp22Name = (accumulator: Accumulator) =>
  accumulator.kind === 'fp22' && accumulator.promoteEvery ? 'fp22 promoted' : 'fp22';

function hopperCase(
  input: string,
  weight: string,
  sizes: Sizes,
  accumulator: Accumulator,
  transposed: boolean,
  spread = 1,
): Case {
  const data = new Data(205);
  const { m, n, k, offsets } = sizes;
  const [inner, outer] = transposed ? [n, k] : [k, n];
  const [aType, wType] = [operand(input), operand(weight)];
  const a = quantized(extreme(data.rough([m, inner]), spread), aType);
  const w = data.rough([offsets ? offsets.length - 1 : 1, n, k]);
  const dtype = transposed ? 'bf16' : 'f32';
  return {
    op: 'gemm',
    name: `${fp22Name(accumulator)}, ${input} × ${weight} ${transposed ? 'transposed, added, ' : ''}${sizeName(sizes)}${spread === 1 ? '' : `, ${spread}`}`,
    inputs: { ...partsOf('a', a), w, ...(offsets && { offsets: Tensor.i32(offsets) }) },
    outputs: { out: transposed ? data.normal([m, outer], dtype) : blank([m, outer], dtype) },
    run: (on, t) =>
      on.gemm(quantizedOf(t, 'a', aType), pack(on, t.w!, wType, transposed), t.out!, {
        accumulator,
        offsets: t.offsets,
        accumulate: transposed,
      }),
  };
}

function hopperWgradCase(
  gradient: string,
  input: string,
  sizes: Sizes,
  accumulator: Accumulator,
  spread = 1,
): Case {
  const data = new Data(206);
  const { m, n, k, offsets } = sizes;
  const operands = { gradient: operand(gradient), input: operand(input) };
  const dy = extreme(data.rough([m, n], 'bf16'), spread);
  const x = quantized(data.rough([m, k]), operands.input);
  const overwrite = m % 2 === 1;
  return {
    op: 'gemmWgrad',
    name: `${fp22Name(accumulator)}, dy as ${gradient}, x ${input}, ${sizeName(sizes)}${spread === 1 ? '' : `, ${spread}`}`,
    inputs: { dy, ...partsOf('x', x), ...(offsets && { offsets: Tensor.i32(offsets) }) },
    outputs: { dw: data.normal([offsets ? offsets.length - 1 : 1, n, k]) },
    run: (on, t) =>
      on.gemmWgrad(t.dy!, quantizedOf(t, 'x', operands.input), t.dw!, operands, {
        accumulator,
        offsets: t.offsets,
        overwrite,
      }),
  };
}
