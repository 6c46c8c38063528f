import { TILE } from '../spec/model.js';
import { type Accumulator, isNarrowFormat, type Operand } from '../spec/precision.js';
import type { QuantizedTensor } from './backend.js';
import { type DType, Tensor } from './tensor.js';

/** Element type and shapes of a GEMM operand [rows, cols]; no `scales` where there is nothing to scale. */
export interface QuantizedShapes {
  /** [rows, cols] */
  codes: { shape: readonly [number, number]; dtype: DType };
  /** f32 [ceil(cols/128), rows] */
  scales: { shape: readonly [number, number]; dtype: 'f32' } | undefined;
}

/**
 * What `Backend.quantize` writes. E5M6 with power-of-two scales is stored already multiplied and has no scales.
 * @param source type of the activation: format fp32 keeps f64 where the reference is given f64
 */
export function quantizedShapes(
  rows: number,
  cols: number,
  operand: Operand,
  source: DType = 'f32',
): QuantizedShapes {
  const scaled = isNarrow(operand) && !(operand.format === 'e5m6' && operand.scale === 'pow2');
  return {
    codes: { shape: [rows, cols], dtype: codeType(operand, source) },
    scales: scaled ? { shape: [Math.ceil(cols / TILE), rows], dtype: 'f32' } : undefined,
  };
}

/** Whether values of this operand are scaled per tile: formats of 8 or 12 bits. */
export const isNarrow = (operand: Operand): boolean => isNarrowFormat(operand.format);

/** Whether all values of the operand share one scale, or have none. */
const isUniform = (operand: Operand): boolean => !isNarrow(operand) || operand.granularity === 'tensor';

/** How Hopper's accumulator is emptied along a contraction of `inner`. */
export interface Fp22 {
  /** Whether the register takes the whole contraction; else it is scaled and emptied every 128 products. */
  whole: boolean;
  /** Whether scaled sums are added in FP32; else in FP22. */
  promote: boolean;
}

/** The FP22 accumulation of a GEMM of two operands; undefined where it is in FP32. */
export function fp22Of(accumulator: Accumulator | undefined, a: Operand, b: Operand): Fp22 | undefined {
  if (accumulator?.kind !== 'fp22' || !(isNarrow(a) || isNarrow(b))) return undefined;
  const promote = accumulator.promoteEvery !== null;
  return { whole: !promote && isUniform(a) && isUniform(b), promote };
}

function codeType({ format }: Operand, source: DType): DType {
  if (format === 'fp32') return source === 'f64' ? 'f64' : 'f32';
  return format === 'e5m6' ? 'bf16' : format;
}

/** A zero-filled operand [rows, cols] in ordinary JavaScript memory. */
export function zeroQuantized(
  rows: number,
  cols: number,
  operand: Operand,
  source: DType = 'f32',
): QuantizedTensor {
  const { codes, scales } = quantizedShapes(rows, cols, operand, source);
  return {
    operand,
    codes: Tensor.zeros(codes.shape, codes.dtype),
    scales: scales && Tensor.zeros(scales.shape, scales.dtype),
  };
}
