/**
 * Quantities as text, in SI units: `20.1 M`, `3.2 GB`, `4 min 12 s`. Three significant digits, no trailing zeros.
 */

const LARGE = ['', 'k', 'M', 'G', 'T', 'P', 'E'] as const;
const SMALL = ['', 'm', 'µ', 'n'] as const;

/** Rounds to three significant digits and drops trailing zeros: 3.20 → "3.2". */
function threeDigits(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/**
 * `value` with an SI prefix and a unit, e.g. `si(2.01e7, 'FLOPS')` is "20.1 MFLOPS".
 * Values that are not finite are spelled as JavaScript spells them.
 */
export function si(value: number, unit = ''): string {
  if (!Number.isFinite(value)) return `${value} ${unit}`.trimEnd();
  const rounded = Number(value.toPrecision(3));
  const magnitude = Math.abs(rounded);
  const thousands = magnitude === 0 ? 0 : Math.floor(Math.log10(magnitude) / 3 + 1e-9);
  const index = Math.max(1 - SMALL.length, Math.min(thousands, LARGE.length - 1));
  const prefix = index >= 0 ? LARGE[index]! : SMALL[-index]!;
  return `${threeDigits(value / 1000 ** index)} ${prefix}${unit}`.trimEnd();
}

/** A number of things: "20.1 M"; below a thousand without a prefix, in full. */
export const count = (value: number): string => si(value);

/** A number of bytes: "3.2 GB" (1 GB = 10⁹ bytes). */
export const bytes = (value: number): string => si(value, 'B');

/** A number of bytes in powers of 1024, as sizes of messages are given: "64 B", "16 GiB". */
export function binaryBytes(value: number): string {
  const power = Math.max(0, Math.min(4, Math.floor(Math.log2(value) / 10 + 1e-9)));
  return `${threeDigits(value / 1024 ** power)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`;
}

/** Things per second: "5.1 k tokens/s". */
export const rate = (value: number, unit: string): string => `${si(value)} ${unit}/s`;

/** A share in percent: "37.5 %". */
export const percent = (share: number): string => `${threeDigits(share * 100)} %`;

/** Larger units of time, in seconds; each is shown with the next smaller one. */
const TIMES = [
  { unit: 'd', seconds: 86_400 },
  { unit: 'h', seconds: 3600 },
  { unit: 'min', seconds: 60 },
  { unit: 's', seconds: 1 },
] as const;

/** A time span: "850 ms", "42.1 s", "4 min 12 s", "1 h 3 min", "2 d 5 h". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return 'unknown';
  if (Math.abs(seconds) < 59.95) return si(seconds, 's');
  const whole = Math.round(seconds);
  const largest = TIMES.findIndex((time) => whole >= time.seconds);
  const [large, small] = [TIMES[largest]!, TIMES[largest + 1]!];
  const first = Math.floor(whole / large.seconds);
  const second = Math.floor((whole % large.seconds) / small.seconds);
  return second === 0 ? `${first} ${large.unit}` : `${first} ${large.unit} ${second} ${small.unit}`;
}
