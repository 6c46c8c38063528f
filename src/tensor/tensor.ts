/**
 * Tensors: a shape, an element type and memory. Always contiguous, last dimension fastest.
 *
 * `bf16` lives in a Uint16Array (upper half of the FP32 bits), 8-bit floats in a Uint8Array as their codes, `u8` are bytes
 * with a layout of their own.
 */
export type DType = 'f64' | 'f32' | 'bf16' | 'e4m3' | 'e5m2' | 'u8' | 'i32';

export type TensorData = Float64Array | Float32Array | Uint16Array | Uint8Array | Int32Array;

const ARRAYS = {
  f64: Float64Array,
  f32: Float32Array,
  bf16: Uint16Array,
  e4m3: Uint8Array,
  e5m2: Uint8Array,
  u8: Uint8Array,
  i32: Int32Array,
} as const;

/** Bytes of one element. */
export const elementBytes = (dtype: DType): number => ARRAYS[dtype].BYTES_PER_ELEMENT;

/** Number of elements of a shape. */
export const elementCount = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

export class Tensor {
  /** Gradient of the loss with respect to this tensor, once the tape has reached it. */
  grad: Tensor | undefined;

  /**
   * @param data elements in row-major order; the tape exchanges it when it drops a tensor that it can
   *   compute again
   */
  constructor(
    readonly shape: readonly number[],
    readonly dtype: DType,
    public data: TensorData,
  ) {
    if (data.length !== elementCount(shape)) {
      throw new Error(`tensor of shape [${shape}] needs ${elementCount(shape)} elements, got ${data.length}`);
    }
  }

  /** Elements in all. */
  get size(): number {
    return this.data.length;
  }

  /** Length of the last dimension. */
  get cols(): number {
    return this.shape[this.shape.length - 1]!;
  }

  /** Product of all dimensions but the last. */
  get rows(): number {
    return this.size / this.cols;
  }

  /** The same memory under another shape. */
  reshape(shape: readonly number[]): Tensor {
    return new Tensor(shape, this.dtype, this.data);
  }

  /** Rows `from`..`to` of the flattened [rows, cols] matrix, sharing memory. */
  rowsView(from: number, to: number): Tensor {
    const cols = this.cols;
    return new Tensor(
      [to - from, cols],
      this.dtype,
      this.data.subarray(from * cols, to * cols) as TensorData,
    );
  }

  /** A tensor over fresh or given memory. */
  static over(shape: readonly number[], dtype: DType, buffer: ArrayBuffer, byteOffset = 0): Tensor {
    return new Tensor(shape, dtype, new ARRAYS[dtype](buffer, byteOffset, elementCount(shape)));
  }

  /** A zero-filled tensor in ordinary JavaScript memory. */
  static zeros(shape: readonly number[], dtype: DType): Tensor {
    return new Tensor(shape, dtype, new ARRAYS[dtype](elementCount(shape)));
  }

  static f32(shape: readonly number[], values: ArrayLike<number>): Tensor {
    return new Tensor(shape, 'f32', Float32Array.from(values));
  }

  static i32(values: Int32Array | readonly number[]): Tensor {
    const data = values instanceof Int32Array ? values : Int32Array.from(values);
    return new Tensor([data.length], 'i32', data);
  }
}
