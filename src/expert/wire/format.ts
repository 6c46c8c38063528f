import { UsageError } from '../../errors.js';
import { LOGFMT_HEADER_BYTES } from '../../numerics/logfmt.js';
import { packedBytes } from '../../numerics/packing.js';
import type { Format } from '../../spec/precision.js';

/** A number format that activations travel in: one of the recipes' formats, or LogFMT-n, n = 4..16 [ISCA §3.2]. */
export type WireFormat =
  | { readonly kind: 'float'; readonly format: Format }
  | { readonly kind: 'logfmt'; readonly bits: number };

/** Formats of both directions. */
export interface Wire {
  /** To the experts, with power-of-two scales where the format has scales [TR §3.3.3]. */
  readonly dispatch: WireFormat;
  /** Back from them. */
  readonly combine: WireFormat;
}

/** Values that share a scale or a range, and bytes of a scale. */
export const WIRE_TILE = 128;
const SCALE_BYTES = 4;

const NAMES: Record<string, Format> = {
  fp32: 'fp32',
  bf16: 'bf16',
  fp8: 'e4m3',
  e4m3: 'e4m3',
  e5m2: 'e5m2',
  e5m6: 'e5m6',
};
const KNOWN = `${Object.keys(NAMES).join(', ')} and logfmt4 to logfmt16`;

/** @throws UsageError for an unknown name */
export function parseWireFormat(name: string): WireFormat {
  const format = Object.hasOwn(NAMES, name) ? NAMES[name] : undefined;
  if (format) return { kind: 'float', format };
  const bits = Number(/^logfmt(\d+)$/.exec(name)?.[1] ?? 0);
  if (bits >= 4 && bits <= 16) return { kind: 'logfmt', bits };
  throw new UsageError(`unknown wire format "${name}"; known are ${KNOWN}`);
}

/** Formats of dispatch and combine as in `fp8:logfmt10`; one name stands for both. @throws UsageError */
export function parseWire(text: string): Wire {
  const [dispatch, combine, ...rest] = text.split(':');
  if (rest.length > 0) throw new UsageError(`--wire ${text} is not DISPATCH:COMBINE, as in fp8:logfmt10`);
  return { dispatch: parseWireFormat(dispatch!), combine: parseWireFormat(combine ?? dispatch!) };
}

export const wireFormatName = (wire: WireFormat): string =>
  wire.kind === 'logfmt' ? `logfmt${wire.bits}` : wire.format === 'e4m3' ? 'fp8' : wire.format;

export const wireName = ({ dispatch, combine }: Wire): string =>
  `${wireFormatName(dispatch)}:${wireFormatName(combine)}`;

/** Bytes of `count` values that share a scale or a range. */
export function tileBytes(wire: WireFormat, count: number): number {
  if (wire.kind === 'logfmt') return LOGFMT_HEADER_BYTES + packedBytes(count, wire.bits);
  switch (wire.format) {
    case 'fp32':
      return 4 * count;
    case 'bf16':
      return 2 * count;
    case 'e5m6':
      return SCALE_BYTES + packedBytes(count, 12);
    default:
      return SCALE_BYTES + count;
  }
}

/** Bytes of one row of `width` values: its tiles, up to a whole number of four bytes. */
export function rowBytes(wire: WireFormat, width: number): number {
  const full = Math.floor(width / WIRE_TILE);
  const rest = width % WIRE_TILE;
  const bytes = full * tileBytes(wire, WIRE_TILE) + (rest ? tileBytes(wire, rest) : 0);
  return Math.ceil(bytes / 4) * 4;
}

/** Bytes a value, for estimates (`WireFormats` of plan/exchange.ts). */
export const bytesPerValue = (wire: WireFormat): number => tileBytes(wire, WIRE_TILE) / WIRE_TILE;
