import { describe, expect, it } from 'vitest';
import { loadNativeBackend } from '../../src/backend/native/index.js';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { Random } from '../../src/numerics/random.js';
import { RECIPES } from '../../src/spec/precision.js';
import { linear } from '../../src/tensor/functions.js';
import { Parameter } from '../../src/tensor/parameter.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { firstWrongRow, firstWrongRowOfGroups, gemmVerifier, roundingOf } from '../../src/train/verify.js';

const backend = loadNativeBackend() ?? referenceBackend;
const random = new Random(1);
const normal = (shape: number[], deviation: number): Tensor =>
  Tensor.f32(
    shape,
    Float32Array.from({ length: shape[0]! * shape[1]! }, () => deviation * random.normal()),
  );

/** y = x·Wᵀ in a recipe. */
function product(precision: 'fp32' | 'bf16' | 'fp8') {
  const w = new Parameter('w', normal([96, 256], 0.02), backend);
  const plain = normal([8, 256], 1);
  const x = Tensor.zeros([8, 256], precision === 'fp32' ? 'f32' : 'bf16');
  backend.cast(plain, x);
  const tape = new Tape(backend, new Pool(backend), false);
  return { w, x, y: linear(tape, x, w, RECIPES[precision].linear) };
}

describe('checksums of products', () => {
  it.each(['fp32', 'bf16', 'fp8'] as const)('hold in %s', (precision) => {
    for (let i = 0; i < 20; i++) {
      const { w, x, y } = product(precision);
      expect(firstWrongRow(w.value, x, y, roundingOf(RECIPES[precision]))).toBeUndefined();
    }
  });

  it('show a flipped exponent bit of a result, and NaN', () => {
    const { w, x, y } = product('bf16');
    const data = y.data as Uint16Array;
    data[2 * 96 + 5] = data[2 * 96 + 5]! ^ 0x4000;
    expect(firstWrongRow(w.value, x, y, 'bf16')).toBe(2);
    expect(() => gemmVerifier(7, 'bf16').linear!(w, x, y)).toThrow('step 7: row 2 of the product with w');
    data[2 * 96 + 5] = 0x7fc0;
    expect(firstWrongRow(w.value, x, y, 'bf16')).toBe(2);
  });

  it('show a weight that differs between the product and the check', () => {
    const { w, x, y } = product('fp8');
    (w.value.data as Float32Array)[0] = 100;
    expect(firstWrongRow(w.value, x, y, 'narrow')).toBeDefined();
  });
});

describe('checksums of products of experts', () => {
  const [experts, n, k] = [6, 96, 256];
  // Expert 4 has no rows.
  const offsets = Tensor.i32(Int32Array.of(0, 3, 4, 9, 20, 20, 31));

  function grouped(precision: 'fp32' | 'bf16' | 'fp8') {
    const w = new Parameter('experts', normal([experts * n, k], 0.02).reshape([experts, n, k]), backend);
    const x = Tensor.zeros([31, k], precision === 'fp32' ? 'f32' : 'bf16');
    backend.cast(normal([31, k], 1), x);
    const tape = new Tape(backend, new Pool(backend), false);
    return { w, x, y: linear(tape, x, w, RECIPES[precision].expertUp, { offsets }) };
  }

  it.each(['fp32', 'bf16', 'fp8'] as const)('hold in %s', (precision) => {
    for (let turn = 0; turn < 6; turn++) {
      const { w, x, y } = grouped(precision);
      const rounding = roundingOf(RECIPES[precision]);
      expect(firstWrongRowOfGroups(w, x, y, rounding, offsets, turn)).toBeUndefined();
    }
  });

  it('show a flipped bit when its expert has its turn', () => {
    const { w, x, y } = grouped('bf16');
    const data = y.data as Uint16Array;
    data[20 * n + 7] = data[20 * n + 7]! ^ 0x4000;
    // Four experts a step: 0 to 3, then 4, 5, 0 and 1.
    expect(firstWrongRowOfGroups(w, x, y, 'bf16', offsets, 0)).toBeUndefined();
    expect(firstWrongRowOfGroups(w, x, y, 'bf16', offsets, 1)).toBe(20);
    expect(() => gemmVerifier(1, 'bf16').linear!(w, x, y, offsets)).toThrow(
      'row 20 of the product with experts',
    );
  });

  it('are of the rows that met the expert', () => {
    const { w, x, y } = grouped('bf16');
    const shifted = Tensor.i32(Int32Array.of(0, 2, 4, 9, 20, 20, 31));
    expect(firstWrongRowOfGroups(w, x, y, 'bf16', shifted, 0)).toBeDefined();
  });
});
