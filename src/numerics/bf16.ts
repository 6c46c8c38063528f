/**
 * BF16: the upper half of an FP32 number (1 sign, 8 exponent, 7 mantissa bits), kept as its 16 bits.
 *
 * Encoding rounds to nearest, ties to even; every NaN becomes 0x7fc0, as in PyTorch. Values beyond FP32 precision
 * are rounded to FP32 first.
 */
const NAN_CODE = 0x7fc0;

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** FP32 bits → BF16 bits. */
function roundBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return NAN_CODE;
  // Half a BF16 step, less one unit where the kept part is even: a tie then stays on the even side.
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The BF16 code nearest to `value`. */
export function encodeBf16(value: number): number {
  scratch[0] = value;
  return roundBits(scratchBits[0]!);
}

/** The value of a BF16 code, exact. */
export function decodeBf16(code: number): number {
  scratchBits[0] = code << 16;
  return scratch[0]!;
}

/** `value` rounded to BF16 precision. */
export const roundBf16 = (value: number): number => decodeBf16(encodeBf16(value));

/** Encodes `values` element by element into `codes`, which has the same length; returns `codes`. */
export function encodeBf16Array(
  values: Float32Array | Float64Array,
  codes: Uint16Array = new Uint16Array(values.length),
): Uint16Array {
  const floats = values instanceof Float32Array ? values : Float32Array.from(values);
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  for (let i = 0; i < bits.length; i++) codes[i] = roundBits(bits[i]!);
  return codes;
}

/** Decodes `codes` element by element into `values`, which has the same length; returns `values`. */
export function decodeBf16Array(
  codes: Uint16Array,
  values: Float32Array = new Float32Array(codes.length),
): Float32Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < codes.length; i++) bits[i] = codes[i]! << 16;
  return values;
}
