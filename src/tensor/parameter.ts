import type { Operand } from '../spec/precision.js';
import type { Backend, PackedWeight } from './backend.js';
import { type DType, elementBytes, elementCount, Tensor } from './tensor.js';

/**
 * A trained weight: FP32 master values, FP32 gradient, and the copies packed for GEMMs, which are made again
 * when first used after the values changed.
 */
export class Parameter {
  private accumulator: Tensor | undefined;
  /** Whether the accumulator's content is void and counts as zero. */
  private isClear = true;
  private readonly packs = new Map<string, { packed: PackedWeight; stale: boolean }>();

  constructor(
    /** Name in our layout, e.g. `model.layers.0.self_attn.o_proj.weight`. */
    readonly name: string,
    /** f32, matrices [N, K] or grouped [G, N, K], vectors [D]. */
    readonly value: Tensor,
    private readonly backend: Backend,
  ) {}

  /** The gradient accumulator f32, as large as the value. */
  gradient(): Tensor {
    this.addGradient((accumulator, overwrite) => {
      if (overwrite) this.backend.fill(accumulator, 0);
    });
    return this.accumulator!;
  }

  /** Lets the gradient lie in `memory`, as many elements as the value has. */
  keepGradientIn(memory: Float32Array): void {
    this.accumulator = new Tensor(this.value.shape, 'f32', memory);
    this.isClear = true;
  }

  /** Lets `write` add to the gradient; where `overwrite`, what it finds is void and it writes instead. */
  addGradient(write: (accumulator: Tensor, overwrite: boolean) => void): void {
    this.accumulator ??= allocate(this.backend, this.value.shape, 'f32');
    write(this.accumulator, this.isClear);
    this.isClear = false;
  }

  /** Makes the gradient zero; the memory is written when it is next used. */
  clearGradient(): void {
    this.isClear = true;
  }

  /** Bytes of the gradient accumulator, once there is one. */
  get gradientBytes(): number {
    return this.accumulator?.data.byteLength ?? 0;
  }

  /** The weight packed for the forward product or, `transposed`, for Dgrad. */
  packed(operand: Operand, transposed: boolean): PackedWeight {
    const key = `${operand.format}/${operand.scale}/${operand.granularity}/${transposed}`;
    let entry = this.packs.get(key);
    if (!entry) {
      entry = { packed: this.allocatePack(operand, transposed), stale: true };
      this.packs.set(key, entry);
    }
    if (entry.stale) this.backend.packWeight(this.value, entry.packed);
    entry.stale = false;
    return entry.packed;
  }

  /** To be called after the values changed. */
  valueChanged(): void {
    for (const entry of this.packs.values()) entry.stale = true;
  }

  /** Bytes of all packed copies. */
  get packedBytes(): number {
    let bytes = 0;
    for (const { packed } of this.packs.values())
      bytes += packed.data.data.byteLength + (packed.scales?.data.byteLength ?? 0);
    return bytes;
  }

  private allocatePack(operand: Operand, transposed: boolean): PackedWeight {
    const [n, k] = this.value.shape.slice(-2) as [number, number];
    const shape = [this.value.shape.length === 3 ? this.value.shape[0]! : 1, n, k] as const;
    const sizes = this.backend.packedSizes(shape, operand, transposed);
    return {
      operand,
      transposed,
      shape,
      data: allocate(this.backend, [sizes.data.elements], sizes.data.dtype),
      scales: sizes.scales > 0 ? allocate(this.backend, [sizes.scales], 'f32') : undefined,
    };
  }
}

/** A tensor in the backend's own memory, uninitialised, outside any pool. */
export function allocate(backend: Backend, shape: readonly number[], dtype: DType): Tensor {
  const bytes = elementCount(shape) * elementBytes(dtype);
  return Tensor.over(shape, dtype, backend.allocate(bytes));
}
