import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { Pool, type PoolSizes } from '../../src/tensor/pool.js';

/** Bytes reserved after steps of 1 … 512 rows that hold two tensors each. */
function reserved(sizes: PoolSizes): number {
  const pool = new Pool(referenceBackend, sizes);
  for (let rows = 1; rows <= 512; rows++) {
    const held = [pool.take([rows, 1024], 'f32'), pool.take([rows, 1024], 'f32')];
    for (const tensor of held) pool.release(tensor);
  }
  return pool.reservedBytes;
}

describe('a pool', () => {
  it('of powers of two stays below twice the largest step, whatever sizes steps have', () => {
    const largest = 2 * 512 * 1024 * 4;
    expect(reserved('powers')).toBeLessThanOrEqual(2 * largest);
    expect(reserved('pages')).toBeGreaterThan(100 * largest);
  });

  it('of quarters wastes a quarter at most, and is filled once by steps that differ little', () => {
    const pool = new Pool(referenceBackend, 'quarters');
    const sizes = [900, 1000, 950, 1050, 1100].map((rows) => {
      const tensor = pool.take([rows, 1024], 'f32');
      pool.release(tensor);
      return tensor.data.buffer.byteLength / (rows * 4096);
    });
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1.25);
    expect(pool.reservedBytes).toBe((1024 + 1280) * 4096);
  });

  it('hands a buffer out again once its last holder has let go', () => {
    const pool = new Pool(referenceBackend);
    const first = pool.take([10], 'f32');
    pool.retain(first);
    pool.release(first);
    const second = pool.take([10], 'f32');
    expect(second.data.buffer).not.toBe(first.data.buffer);
    pool.release(first);
    expect(pool.take([10], 'f32').data.buffer).toBe(first.data.buffer);
  });
});
