import { expect } from 'vitest';
import { referenceBackend } from '../../../src/backend/reference/index.js';
import { decodeBf16 } from '../../../src/numerics/bf16.js';
import { E4M3, E5M2 } from '../../../src/numerics/minifloat.js';
import type { Backend } from '../../../src/tensor/backend.js';
import { type DType, elementBytes, elementCount, Tensor } from '../../../src/tensor/tensor.js';

/**
 * One case: the same inputs go to the backend under test and to the reference, into outputs that start as NaN (or
 * with what the op adds to), and the outputs are compared. The backend runs twice and must give the same bits.
 */
export interface Case {
  op: string;
  /** Distinguishes the case among those of its op. */
  name: string;
  inputs: Tensors;
  /** What the outputs hold beforehand: `blank` tensors or values that are added to or changed in place. */
  outputs: Tensors;
  run(backend: Backend, t: Tensors): void;
  /** How far each output may be from the reference's; an output not named here must be equal. */
  tolerance?: Record<string, Tolerance> | ((want: Tensors) => Record<string, Tolerance>);
}

export type Tensors = Record<string, Tensor>;

/**
 * Largest error of each element in FP32 arithmetic, absolute. One step of the output's format is added: two values
 * that close may lie on either side of a rounding boundary.
 */
export type Tolerance = number | ArrayLike<number>;

/** Unit roundoff of FP32: a sum of n terms in any order is wrong by at most n·ULP·Σ|terms| [Higham, §4.2]. */
export const ULP = 2 ** -24;

/** Largest distance between neighbours, relative to the value. */
const STEP: Partial<Record<DType, number>> = { f32: 2 ** -23, bf16: 2 ** -7 };

/** What kernels may flush to zero: subnormals of FP32 (the x86 BF16 instructions do). */
const SMALLEST_NORMAL = 2 ** -126;

const BLANK: Record<DType, number> = {
  f64: Number.NaN,
  f32: Number.NaN,
  bf16: 0x7fc0,
  e4m3: 0x7f,
  e5m2: 0x7f,
  u8: 0xff,
  i32: -(2 ** 31),
};

/** An output that the op must fill: NaN, or the lowest integer. */
export function blank(shape: readonly number[], dtype: DType): Tensor {
  const t = Tensor.zeros(shape, dtype);
  t.data.fill(BLANK[dtype]);
  return t;
}

/** Element i as a number. */
export function valueAt(t: Tensor, i: number): number {
  if (t.dtype === 'bf16') return decodeBf16(t.data[i]!);
  if (t.dtype === 'e4m3') return E4M3.decode(t.data[i]!);
  if (t.dtype === 'e5m2') return E5M2.decode(t.data[i]!);
  return t.data[i]!;
}

/** All elements as numbers. */
export const valuesOf = (t: Tensor): Float64Array =>
  Float64Array.from({ length: t.size }, (_, i) => valueAt(t, i));

/** Largest magnitude of a tensor. */
export const largest = (t: Tensor): number => valuesOf(t).reduce((max, x) => Math.max(max, Math.abs(x)), 0);

/** A tensor of the backend's memory. */
export function allocate(backend: Backend, shape: readonly number[], dtype: DType): Tensor {
  return Tensor.over(shape, dtype, backend.allocate(elementCount(shape) * elementBytes(dtype)));
}

function copyTo(backend: Backend, tensors: Tensors): Tensors {
  const copy = (t: Tensor) => {
    const own = allocate(backend, t.shape, t.dtype);
    own.data.set(t.data);
    return own;
  };
  return Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, copy(t)]));
}

/** Runs a case on one backend and returns its outputs. */
export function runOn(backend: Backend, { inputs, outputs, run }: Case): Tensors {
  const results = copyTo(backend, outputs);
  run(backend, { ...copyTo(backend, inputs), ...results });
  return results;
}

/** A test of its own beside the comparison with the reference. */
export interface Rule {
  op: string;
  name: string;
  verify(backend: Backend): void;
}

/** What the reference gives for a case, for all backends that run it. */
const expected = new Map<Case, Tensors>();

function expectedOf(test: Case): Tensors {
  const known = expected.get(test);
  if (known) return known;
  const want = runOn(referenceBackend, test);
  expected.set(test, want);
  return want;
}

/** Runs a case on `backend`, twice, and compares. */
export function check(backend: Backend, test: Case): void {
  const want = expectedOf(test);
  const got = runOn(backend, test);
  const { op, name: about, tolerance = {} } = test;
  const allowed = typeof tolerance === 'function' ? tolerance(want) : tolerance;
  for (const name of Object.keys(test.outputs)) {
    expectClose(`${op} (${about}): ${name}`, got[name]!, want[name]!, allowed[name]);
  }
  const again = runOn(backend, test);
  for (const name of Object.keys(test.outputs)) {
    expectSameBits(`${op} (${about}): ${name}`, again[name]!, got[name]!);
  }
}

/** Fails with the first element that is off: its coordinate, both values and what was allowed. */
function expectClose(where: string, got: Tensor, want: Tensor, tolerance: Tolerance | undefined): void {
  for (let i = 0; i < want.size; i++) {
    const [a, b] = [valueAt(got, i), valueAt(want, i)];
    const allowed = tolerance === undefined ? 0 : allowedError(tolerance, i, b, want.dtype);
    if (Object.is(a, b) || Math.abs(a - b) <= allowed) continue;
    expect.fail(
      `${where} [${want.shape}] ${want.dtype} at [${coordinate(i, want.shape)}]: ` +
        `got ${a}, expected ${b}, difference ${Math.abs(a - b)}, allowed ${allowed}`,
    );
  }
}

function allowedError(tolerance: Tolerance, i: number, want: number, dtype: DType): number {
  const error = typeof tolerance === 'number' ? tolerance : tolerance[i]!;
  return error + (STEP[dtype] ?? 0) * Math.abs(want) + SMALLEST_NORMAL;
}

function coordinate(index: number, shape: readonly number[]): number[] {
  const at: number[] = [];
  let rest = index;
  for (const length of [...shape].reverse()) {
    at.unshift(rest % length);
    rest = Math.floor(rest / length);
  }
  return at;
}

function expectSameBits(where: string, again: Tensor, first: Tensor): void {
  const bytes = ({ data }: Tensor) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  expect(bytes(again).equals(bytes(first)), `${where}: two runs must give the same bits`).toBe(true);
}
