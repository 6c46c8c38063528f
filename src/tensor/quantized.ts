import { TILE } from '../spec/model.js';
import type { Operand } from '../spec/precision.js';
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
export const isNarrow = (operand: Operand): boolean => operand.format !== 'fp32' && operand.format !== 'bf16';

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
