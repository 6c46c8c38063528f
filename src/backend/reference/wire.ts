import { decodeBf16Array, encodeBf16Array } from '../../numerics/bf16.js';
import { decodeLogFmt, encodeLogFmt } from '../../numerics/logfmt.js';
import { LOGFMT_BITS, operandOf, type Wire } from '../../spec/precision.js';
import { zeroQuantized } from '../../tensor/quantized.js';
import type { Tensor } from '../../tensor/tensor.js';
import { operandValues, quantize } from './quantize.js';
import { commit, read, target, type Values } from './values.js';

/** out = x [R, D] as it arrives in format `wire`, in tiles of 1×128 along D. */
export function throughWire(x: Tensor, wire: Wire, out: Tensor): void {
  const values = target(out);
  values.set(arrived(x, wire));
  commit(out, values);
}

function arrived(x: Tensor, { format, rounding }: Wire): Values {
  if (format === 'fp32') return Float32Array.from(read(x));
  if (format === 'bf16') return decodeBf16Array(encodeBf16Array(read(x)));
  if (format === 'logfmt8' || format === 'logfmt10') {
    const bits = LOGFMT_BITS[format];
    const values = Float32Array.from(read(x));
    if (!values.every(Number.isFinite)) return values.fill(Number.NaN);
    const packed = encodeLogFmt(values, x.cols, bits, rounding);
    return decodeLogFmt(packed, x.cols, bits, new Float32Array(x.size));
  }
  const q = zeroQuantized(x.rows, x.cols, operandOf(format));
  quantize(x, q);
  return operandValues(q);
}
