/**
 * Codes of n bits, n = 1..16, in a row of bytes without gaps: bit b of code i is bit (i·n + b) mod 8 of byte
 * ⌊(i·n + b) / 8⌋, so the lowest bits come first on every machine. With n = 4 the first code of a pair is the low
 * nibble, as PyTorch's float4_e2m1fn_x2 has it. Bits after the last code are zero.
 */

/** Bytes that `count` codes of `bits` bits take. */
export const packedBytes = (count: number, bits: number): number => Math.ceil((count * bits) / 8);

/**
 * Packs codes[start .. start+count) into `out` from byte `at`; what lies above a code's `bits` bits must be zero.
 * @returns the byte after the last one written
 */
export function packCodes(
  codes: ArrayLike<number>,
  start: number,
  count: number,
  bits: number,
  out: Uint8Array,
  at: number,
): number {
  let held = 0;
  let waiting = 0; // bits in `held`, fewer than 8 between codes
  let next = at;
  for (let i = start; i < start + count; i++) {
    held |= codes[i]! << waiting;
    for (waiting += bits; waiting >= 8; waiting -= 8) {
      out[next++] = held & 0xff;
      held >>>= 8;
    }
  }
  if (waiting > 0) out[next++] = held;
  return next;
}

/** The inverse of `packCodes`: reads from byte `at`, writes codes[start .. start+count). */
export function unpackCodes(
  bytes: Uint8Array,
  at: number,
  count: number,
  bits: number,
  codes: { [index: number]: number },
  start: number,
): void {
  const mask = 2 ** bits - 1;
  let held = 0;
  let waiting = 0;
  let next = at;
  for (let i = start; i < start + count; i++) {
    for (; waiting < bits; waiting += 8) held |= bytes[next++]! << waiting;
    codes[i] = held & mask;
    held >>>= bits;
    waiting -= bits;
  }
}
