import {
  checkWireLength,
  damagedTile,
  type LogFmtCodec,
  logFmtBytes,
  notFinite,
} from '../../numerics/logfmt.js';
import type { Kernels } from './addon.js';

/** LogFMT on the addon's kernels, which give the reference's bits at every instruction-set level. */
export function nativeLogFmt(kernels: Kernels): LogFmtCodec {
  return {
    encode: (values, cols, bits, rounding = 'linear', out) => {
      const wire = out ?? new Uint8Array(logFmtBytes(values.length / cols, cols, bits));
      const bad = kernels.logfmtEncode(values, cols, bits, rounding === 'linear', wire);
      if (bad >= 0) throw notFinite(bits, bad, cols);
      return wire;
    },
    decode: (wire, cols, bits, out) => {
      checkWireLength(wire.length, out.length, cols, bits);
      const bad = kernels.logfmtDecode(wire, cols, bits, out);
      if (bad >= 0) throw damagedTile(bits, bad);
      return out;
    },
  };
}
