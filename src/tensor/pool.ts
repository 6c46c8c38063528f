import type { Backend } from './backend.js';
import { type DType, elementBytes, elementCount, Tensor } from './tensor.js';

/** Sizes are rounded up to a page, so that tensors of nearly equal size share buffers. */
const GRANULE = 4096;

/**
 * Sizes that buffers have: `pages`, whole ones, for steps that are all alike; `powers` of two for steps of any size; `quarters`,
 * 4, 5, 6 or 7 times a power of two, for steps whose numbers of rows are about the same.
 */
export type PoolSizes = 'pages' | 'powers' | 'quarters';

/**
 * Memory of a step: buffers are handed out by size and come back when their last holder lets go. When steps repeat,
 * nothing is allocated any more.
 */
export class Pool {
  private readonly free = new Map<number, ArrayBuffer[]>();
  private readonly holders = new Map<ArrayBuffer, number>();
  /** Bytes ever taken from the backend. */
  reservedBytes = 0;

  constructor(
    private readonly backend: Backend,
    private readonly sizes: PoolSizes = 'pages',
  ) {}

  /** An uninitialised tensor with one holder. */
  take(shape: readonly number[], dtype: DType): Tensor {
    const bytes = roundUp(elementCount(shape) * elementBytes(dtype), this.sizes);
    const buffer = this.free.get(bytes)?.pop() ?? this.reserve(bytes);
    this.holders.set(buffer, 1);
    return Tensor.over(shape, dtype, buffer);
  }

  /** Number of holders of the tensor's memory; parameters and inputs, which are not pooled, have none. */
  holdersOf(tensor: Tensor): number {
    return this.holders.get(tensor.data.buffer as ArrayBuffer) ?? 0;
  }

  retain(tensor: Tensor): void {
    const buffer = tensor.data.buffer as ArrayBuffer;
    const count = this.holders.get(buffer);
    if (count !== undefined) this.holders.set(buffer, count + 1);
  }

  release(tensor: Tensor): void {
    const buffer = tensor.data.buffer as ArrayBuffer;
    const count = this.holders.get(buffer);
    if (count === undefined) return;
    if (count > 1) {
      this.holders.set(buffer, count - 1);
      return;
    }
    this.holders.delete(buffer);
    const list = this.free.get(buffer.byteLength);
    if (list) list.push(buffer);
    else this.free.set(buffer.byteLength, [buffer]);
  }

  private reserve(bytes: number): ArrayBuffer {
    this.reservedBytes += bytes;
    return this.backend.allocate(bytes);
  }
}

function roundUp(bytes: number, sizes: PoolSizes): number {
  const pages = Math.max(1, Math.ceil(bytes / GRANULE));
  if (sizes === 'pages') return pages * GRANULE;
  const power = 2 ** Math.ceil(Math.log2(pages));
  const step = sizes === 'powers' ? power : Math.max(1, power / 8);
  return Math.ceil(pages / step) * step * GRANULE;
}
