import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { throughWire } from '../../src/tensor/expert-functions.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { Data } from '../backend/data.js';

const tape = () => new Tape(referenceBackend, new Pool(referenceBackend), true);

describe('the way back from the experts', () => {
  it('rounds values and lets gradients pass', () => {
    const on = tape();
    const [rows, gradient] = [new Data(1).normal([3, 256]), new Data(2).normal([3, 256])];
    const arrived = throughWire(on, rows, { format: 'e4m3' });
    // Half a step of E4M3 is 2^-4 of a normal value; the smallest ones of a tile are flushed to 2^-10 of its scale.
    for (let i = 0; i < rows.size; i++) {
      expect(Math.abs(arrived.data[i]! - rows.data[i]!)).toBeLessThanOrEqual(
        2 ** -4 * Math.abs(rows.data[i]!) + 1e-4,
      );
    }
    expect(arrived.data).not.toEqual(rows.data);
    on.addGrad(arrived, gradient);
    on.backward();
    expect(rows.grad!.data).toEqual(gradient.data);
  });

  it('is nothing where activations have that format', () => {
    const [single, half] = [Tensor.zeros([2, 128], 'f32'), Tensor.zeros([2, 128], 'bf16')];
    expect(throughWire(tape(), single, { format: 'fp32' })).toBe(single);
    expect(throughWire(tape(), half, { format: 'bf16' })).toBe(half);
    expect(throughWire(tape(), half, { format: 'fp32' })).toBe(half);
    expect(throughWire(tape(), single, { format: 'bf16' })).not.toBe(single);
  });
});
