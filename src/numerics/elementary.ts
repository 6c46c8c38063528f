/**
 * e^x and ln(x/y) in FP64, from additions, multiplications and one division in a fixed order.
 *
 * LogFMT needs the same bits from every engine and from the native codec, which `Math.exp` and `Math.log` do not
 * promise. IEEE 754 fixes every operation used here; native/logfmt.h repeats them one by one, without fused
 * multiply-adds. Both are within 2 ulp of the true value.
 */

/** ln 2 in two parts; the first has 33 significant bits, so that its product with an exponent is exact [fdlibm, e_exp.c]. */
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;

/** Adding and subtracting 1.5·2^52 rounds a double below 2^51 in magnitude to an integer, ties to even. */
const ROUND = 6755399441055744;

/** 1/k! for k = 13 … 2: on |r| ≤ ln2/2 the series of e^r is then cut off below 2^-57. */
const EXP_SERIES = [
  1 / 6227020800,
  1 / 479001600,
  1 / 39916800,
  1 / 3628800,
  1 / 362880,
  1 / 40320,
  1 / 5040,
  1 / 720,
  1 / 120,
  1 / 24,
  1 / 6,
  1 / 2,
];

/** 1/(2k+1) for k = 10 … 1: on |s| ≤ 3 − 2√2 the series of atanh(s)/s is then cut off below 2^-60. */
const ATANH_SERIES = [1 / 21, 1 / 19, 1 / 17, 1 / 15, 1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3];

/** e^x for |x| ≤ 700. */
export function exp(x: number): number {
  const n = x * Math.LOG2E + ROUND - ROUND;
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let sum = EXP_SERIES[0]!;
  for (let i = 1; i < EXP_SERIES.length; i++) sum = sum * r + EXP_SERIES[i]!;
  return (r * r * sum + r + 1) * 2 ** n;
}

/**
 * ln(x / y) of two positive FP32 values, with a relative error near 2^-52 however close they are:
 * x / y = 2^k · (1+s)/(1−s), so ln(x/y) = k·ln 2 + 2·atanh(s).
 */
export function logRatio(x: number, y: number): number {
  let k = exponentOf(x) - exponentOf(y);
  let p = x * 2 ** -exponentOf(x);
  let q = y * 2 ** -exponentOf(y);
  // p, q in [1, 2): one step brings p/q into [1/√2, √2].
  if (p > q * Math.SQRT2) {
    q *= 2;
    k += 1;
  } else if (q > p * Math.SQRT2) {
    p *= 2;
    k -= 1;
  }
  const s = (p - q) / (p + q);
  const z = s * s;
  let sum = ATANH_SERIES[0]!;
  for (let i = 1; i < ATANH_SERIES.length; i++) sum = sum * z + ATANH_SERIES[i]!;
  return k * LN2_HIGH + (k * LN2_LOW + 2 * (s + s * (z * sum)));
}

const scratch = new Float64Array(1);
const scratchBits = new Uint32Array(scratch.buffer);
const HIGH_WORD = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 1 : 0;

/** floor(log2(x)) of a positive normal double; every positive FP32 value is one. */
export function exponentOf(x: number): number {
  scratch[0] = x;
  return (scratchBits[HIGH_WORD]! >>> 20) - 1023;
}
