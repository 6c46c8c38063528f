import { FORMAT_CODES, type Kernels, loadAddon } from '../../backend/native/addon.js';
import type { Backend } from '../../tensor/backend.js';
import type { WireFormat } from './format.js';
import type { WireKernels } from './kernels.js';
import { referenceWire } from './reference.js';

/** Format codes of LogFMT-n start here (native/wire.h). */
const LOGFMT_CODE = 16;

const codeOf = (wire: WireFormat): number =>
  wire.kind === 'logfmt' ? LOGFMT_CODE + wire.bits : FORMAT_CODES[wire.format];

/** The kernels that go with a backend. */
export function wireKernels(backend: Backend): WireKernels {
  const addon = backend.name === 'native' ? loadAddon() : undefined;
  return addon ? nativeWire(addon) : referenceWire;
}

export function nativeWire(kernels: Kernels): WireKernels {
  return {
    encode: (x, source, format, pow2, base, places) =>
      kernels.wireEncode(x.data, x.cols, source, codeOf(format), pow2, base, places),
    decode: (base, places, format, out) =>
      kernels.wireDecode(base, places, codeOf(format), out.data, out.cols),
    sum: (a, b, out) =>
      kernels.wireSum(
        a.base,
        codeOf(a.format),
        a.bounds,
        a.places,
        b?.base,
        b ? codeOf(b.format) : 0,
        b?.bounds,
        b?.places,
        out.data,
        out.cols,
      ),
    sumTo: (list, width, format, base, places) =>
      kernels.wireReturn(
        list.base,
        codeOf(list.format),
        list.bounds,
        list.places,
        codeOf(format),
        base,
        places,
        width,
      ),
    partial: (rows, members, weights, bounds, base, places) =>
      kernels.wirePartial(rows.data, rows.cols, members, weights, bounds, base, places),
  };
}
