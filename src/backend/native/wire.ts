import { logFmtBytes } from '../../numerics/logfmt.js';
import { LOGFMT_BITS, type Wire } from '../../spec/precision.js';
import type { Backend } from '../../tensor/backend.js';
import type { Tensor } from '../../tensor/tensor.js';
import { FORMAT_CODES, type Kernels } from './addon.js';

/** The op of the contract: values through the format that carries them, and back. */
export function throughWire(kernels: Kernels): Backend['throughWire'] {
  const logfmt = throughLogFmt(kernels);
  return (x, wire, out) => {
    const { format } = wire;
    if (format === 'fp32') kernels.cast(x.data, out.data);
    else if (format === 'bf16') throughBf16(kernels, x, out);
    else if (format === 'logfmt8' || format === 'logfmt10') logfmt(x, LOGFMT_BITS[format], wire, out);
    else kernels.throughTiles(x.data, x.rows, x.cols, FORMAT_CODES[format], out.data);
  };
}

function throughBf16(kernels: Kernels, x: Tensor, out: Tensor): void {
  const rounded = new Uint16Array(x.size);
  kernels.cast(x.data, rounded);
  kernels.cast(rounded, out.data);
}

/** Packs into memory of its own, which grows to the largest tensor that it met. */
function throughLogFmt(kernels: Kernels) {
  let memory = new Uint8Array(0);
  return (x: Tensor, bits: number, { rounding }: Wire, out: Tensor): void => {
    const bytes = logFmtBytes(x.rows, x.cols, bits);
    if (memory.length < bytes) memory = new Uint8Array(bytes);
    const packed = memory.subarray(0, bytes);
    const notFinite = kernels.logfmtEncode(x.data, x.cols, bits, rounding !== 'log', packed) >= 0;
    if (notFinite) kernels.fill(out.data, Number.NaN);
    else kernels.logfmtDecode(packed, x.cols, bits, out.data);
  };
}
