/** Numbers of tables whose unit stands in a column of its own. */

/** Four significant digits, no exponent within 0.001 to 10 million, no trailing zeros. */
export function plainNumber(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(3);
  return String(Number(value.toPrecision(size >= 1000 ? Math.ceil(Math.log10(size + 1)) : 4)));
}

/** A relative deviation in percent, with its sign: "+1.2 %"; "0 %" below a tenth of a percent of a percent. */
export function signedPercent(share: number): string {
  const percent = 100 * share;
  if (Math.abs(percent) < 1e-3) return '0 %';
  const digits = Math.abs(percent) < 10 ? 2 : 1;
  return `${percent > 0 ? '+' : '−'}${Math.abs(percent).toFixed(digits)} %`;
}
