import { encodeBf16Array } from '../numerics/bf16.js';
import { Random } from '../numerics/random.js';
import { type Operand, RECIPES } from '../spec/precision.js';
import type { Backend, PackedWeight, QuantizedTensor } from '../tensor/backend.js';
import { allocate } from '../tensor/parameter.js';
import { quantizedShapes } from '../tensor/quantized.js';
import type { DType, Tensor } from '../tensor/tensor.js';
import type { Traffic } from './machine.js';

/** One kernel on one shape. */
export interface KernelCase {
  name: string;
  /** What to run it on: all threads only, or one thread as well. */
  threads: 'all' | 'one and all';
  /** Allocates its operands; called once, right before it is measured. */
  prepare(backend: Backend): PreparedCase;
  /** Share of its roofline that the project asks for. */
  target?: number;
}

export interface PreparedCase {
  run(): void;
  /** What one run does at least: products, or memory traffic of operands too large for a cache. */
  work: { flops: number } | Traffic;
}

/** Formats of the operands under comparison. */
export const BF16: Operand = RECIPES.bf16.linear.fprop.input;
export const E4M3: Operand = RECIPES.fp8.linear.fprop.input;
export const formatName = (operand: Operand): string => (operand.format === 'bf16' ? 'BF16' : 'FP8');

/** Values in a repeating pattern: long enough that no cache line repeats nearby. */
const PATTERN = 1 << 16;

/** A tensor of normal random values with standard deviation `scale`. */
export function randomTensor(backend: Backend, shape: readonly number[], dtype: DType, scale = 1): Tensor {
  const tensor = allocate(backend, shape, dtype);
  const random = new Random(1);
  const values = Float64Array.from({ length: Math.min(PATTERN, tensor.size) }, () => scale * random.normal());
  tensor.data.set(dtype === 'bf16' ? encodeBf16Array(values) : values);
  for (let filled = values.length; filled < tensor.size; filled *= 2)
    tensor.data.copyWithin(filled, 0, filled);
  return tensor;
}

/** An unwritten GEMM operand of x's shape. */
export function emptyOperand(backend: Backend, x: Tensor, operand: Operand): QuantizedTensor {
  const { codes, scales } = quantizedShapes(x.rows, x.cols, operand, x.dtype);
  return {
    operand,
    codes: allocate(backend, codes.shape, codes.dtype),
    scales: scales && allocate(backend, scales.shape, scales.dtype),
  };
}

/** x in the operand's format. */
export function quantized(backend: Backend, x: Tensor, operand: Operand): QuantizedTensor {
  if (operand.format === 'bf16') return { operand, codes: x, scales: undefined };
  const q = emptyOperand(backend, x, operand);
  backend.quantize(x, q);
  return q;
}

/** An unwritten packed weight [G, N, K]. */
export function emptyPacked(
  backend: Backend,
  shape: readonly [number, number, number],
  operand: Operand,
  transposed: boolean,
): PackedWeight {
  const sizes = backend.packedSizes(shape, operand, transposed);
  return {
    operand,
    transposed,
    shape,
    data: allocate(backend, [sizes.data.elements], sizes.data.dtype),
    scales: sizes.scales > 0 ? allocate(backend, [sizes.scales], 'f32') : undefined,
  };
}

/** w f32 [G, N, K] packed. */
export function packed(backend: Backend, w: Tensor, operand: Operand, transposed = false): PackedWeight {
  const out = emptyPacked(backend, w.shape as [number, number, number], operand, transposed);
  backend.packWeight(w, out);
  return out;
}

/** Bytes of a tensor. */
export const bytesOf = (tensor: Tensor): number => tensor.data.byteLength;
