/**
 * Small floating-point formats: one sign bit, `e` exponent bits, `m` mantissa bits, subnormals, bias 2^(e−1) − 1.
 *
 * `ieee` formats keep the top exponent for infinity and NaN. `fn` formats ("finite, NaN") have no infinity and use
 * the top exponent for numbers, all ones excepted, which is NaN [OCP 8-bit Floating Point Specification, 1.0].
 * Encoding rounds to nearest, ties to even, and saturates: whatever exceeds the largest finite value, infinity
 * too, becomes that value. NaN stays NaN.
 */
const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** Adding and subtracting 2^52 rounds a non-negative double below 2^51 to an integer, ties to even. */
const ROUND = 2 ** 52;

export class Minifloat {
  /** Largest finite value. */
  readonly maxFinite: number;
  /** Value of every code, [2^(1+e+m)]. */
  readonly values: Float32Array;

  private readonly signBit: number;
  private readonly maxCode: number;
  private readonly nanCode: number;
  /** By the biased exponent of the FP32 input, [256]: 1 / step between neighbours, and the code of mantissa zero. */
  private readonly inverseStep = new Float64Array(256);
  private readonly base = new Float64Array(256);

  /** @param variant what the top exponent means, see above */
  constructor(
    readonly name: string,
    readonly exponentBits: number,
    readonly mantissaBits: number,
    variant: 'ieee' | 'fn',
  ) {
    const topExponent = (2 ** exponentBits - 1) << mantissaBits;
    this.signBit = 1 << (exponentBits + mantissaBits);
    this.nanCode = variant === 'ieee' ? topExponent | (1 << (mantissaBits - 1)) : this.signBit - 1;
    this.maxCode = variant === 'ieee' ? topExponent - 1 : this.signBit - 2;
    this.fillEncodeTables();
    this.values = this.decodeTable(variant === 'ieee' ? topExponent : this.nanCode);
    this.maxFinite = this.values[this.maxCode]!;
  }

  /** Code of `value`, which is rounded to FP32 first. */
  encode(value: number): number {
    scratch[0] = value;
    const bits = scratchBits[0]!;
    const sign = bits >>> 31 ? this.signBit : 0;
    const magnitude = Math.abs(scratch[0]!);
    if (Number.isNaN(magnitude)) return sign | this.nanCode;
    const exponent = (bits >>> 23) & 0xff;
    // Codes of neighbours differ by one, across exponents too, so that rounding up may carry into the exponent.
    const code = this.base[exponent]! + (magnitude * this.inverseStep[exponent]! + ROUND - ROUND);
    return sign | Math.min(code, this.maxCode);
  }

  /** Value of a code, exact. */
  decode(code: number): number {
    return this.values[code]!;
  }

  /** Values of `codes`, element by element. */
  decodeArray(codes: Uint8Array | Uint16Array): Float32Array {
    const { values } = this;
    const out = new Float32Array(codes.length);
    for (let i = 0; i < out.length; i++) out[i] = values[codes[i]!]!;
    return out;
  }

  private fillEncodeTables(): void {
    const bias = 2 ** (this.exponentBits - 1) - 1;
    for (let biased = 0; biased < 256; biased++) {
      const exponent = Math.max(biased - 127, 1 - bias);
      this.inverseStep[biased] = 2 ** (this.mantissaBits - exponent);
      this.base[biased] = (exponent + bias - 1) * 2 ** this.mantissaBits;
    }
  }

  /** @param special first non-negative code that is not a number: infinity (ieee) or NaN (fn) */
  private decodeTable(special: number): Float32Array {
    const values = new Float32Array(2 * this.signBit);
    for (let code = 0; code < this.signBit; code++) {
      const value = code < special ? this.magnitude(code) : this.notANumber(code, special);
      values[code] = value;
      values[code + this.signBit] = -value;
    }
    return values;
  }

  private magnitude(code: number): number {
    const bias = 2 ** (this.exponentBits - 1) - 1;
    const field = code >>> this.mantissaBits;
    const fraction = (code & ((1 << this.mantissaBits) - 1)) / 2 ** this.mantissaBits;
    return field === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (field - bias);
  }

  private notANumber(code: number, special: number): number {
    return code === special && code !== this.nanCode ? Number.POSITIVE_INFINITY : Number.NaN;
  }
}

/** 1-4-3, largest value 448 [OCP OFP8; TR §3.3.1]. */
export const E4M3 = new Minifloat('e4m3', 4, 3, 'fn');
/** 1-5-2, largest value 57344 [OCP OFP8]. */
export const E5M2 = new Minifloat('e5m2', 5, 2, 'ieee');
/** 1-5-6 in 12 bits, largest value 65024; inputs of the Linear after attention [TR §3.3.3]. */
export const E5M6 = new Minifloat('e5m6', 5, 6, 'ieee');
