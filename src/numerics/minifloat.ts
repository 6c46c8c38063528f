import { nearestEven, type Rounding } from './rounding.js';

/**
 * Small floating-point formats: one sign bit, `e` exponent bits, `m` mantissa bits, subnormals, bias 2^(e−1) − 1.
 *
 * - `ieee` formats keep the top exponent for infinity and NaN.
 * - `fn` formats ("finite, NaN") have no infinity and use the top exponent for numbers, all ones excepted, which is
 *   NaN [OCP 8-bit Floating Point Specification, 1.0].
 * - `finite` formats have neither: every code is a number [OCP Microscaling Formats (MX) Specification, 1.0, §5.3].
 *
 * Encoding rounds to nearest, ties to even, unless told otherwise, as if the exponent had no limit. What then exceeds
 * the largest finite value, infinity too, becomes that value, or infinity where the format says so. NaN stays NaN.
 */
const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

export class Minifloat {
  readonly bits: number;
  /** Largest finite value. */
  readonly maxFinite: number;
  /** Smallest positive value. */
  readonly smallest: number;

  private readonly signBit: number;
  private readonly maxCode: number;
  /** First non-negative code that is no finite number. */
  private readonly specialCode: number;
  /** Undefined where the format has no NaN. */
  private readonly nanCode: number | undefined;
  private readonly overflowCode: number;
  private table: Float32Array | undefined;
  /** By the biased exponent of the FP32 input, [256]: 1 / step between neighbours, and the code of mantissa zero. */
  private readonly inverseStep = new Float64Array(256);
  private readonly base = new Float64Array(256);

  /**
   * @param variant what the top exponent means, see above
   * @param overflow what values beyond the largest finite one become; infinity needs an `ieee` format
   */
  constructor(
    readonly name: string,
    readonly exponentBits: number,
    readonly mantissaBits: number,
    variant: 'ieee' | 'fn' | 'finite',
    overflow: 'saturate' | 'infinity' = 'saturate',
  ) {
    const topExponent = (2 ** exponentBits - 1) << mantissaBits;
    this.bits = 1 + exponentBits + mantissaBits;
    this.signBit = 1 << (exponentBits + mantissaBits);
    this.specialCode = { ieee: topExponent, fn: this.signBit - 1, finite: this.signBit }[variant];
    this.nanCode = { ieee: topExponent | (1 << (mantissaBits - 1)), fn: this.signBit - 1, finite: undefined }[
      variant
    ];
    this.maxCode = this.specialCode - 1;
    this.overflowCode = overflow === 'infinity' ? this.specialCode : this.maxCode;
    this.fillEncodeTables();
    this.maxFinite = this.magnitude(this.maxCode);
    this.smallest = this.magnitude(1);
  }

  /** Value of every code, [2^(1+e+m)]. */
  get values(): Float32Array {
    this.table ??= this.decodeTable();
    return this.table;
  }

  /**
   * Code of `value`, which is rounded to FP32 first.
   * @throws RangeError for NaN where the format has none
   */
  encode(value: number, rounding: Rounding = nearestEven): number {
    scratch[0] = value;
    const bits = scratchBits[0]!;
    const sign = bits >>> 31 ? this.signBit : 0;
    const magnitude = Math.abs(scratch[0]!);
    if (Number.isNaN(magnitude)) return sign | this.codeOfNaN();
    const exponent = (bits >>> 23) & 0xff;
    // Codes of neighbours differ by one, across exponents too, so that rounding up may carry into the exponent.
    const code = this.base[exponent]! + rounding(magnitude * this.inverseStep[exponent]!);
    return sign | Math.min(code, this.overflowCode);
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

  private codeOfNaN(): number {
    if (this.nanCode === undefined) throw new RangeError(`${this.name} has no code for NaN`);
    return this.nanCode;
  }

  private decodeTable(): Float32Array {
    const values = new Float32Array(2 * this.signBit);
    for (let code = 0; code < this.signBit; code++) {
      const value = code < this.specialCode ? this.magnitude(code) : this.notFinite(code);
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

  private notFinite(code: number): number {
    return code === this.specialCode && code !== this.nanCode ? Number.POSITIVE_INFINITY : Number.NaN;
  }
}

/** 1-4-3, largest value 448 [OCP OFP8; TR §3.3.1]. */
export const E4M3 = new Minifloat('e4m3', 4, 3, 'fn');
/** 1-5-2, largest value 57344 [OCP OFP8]. */
export const E5M2 = new Minifloat('e5m2', 5, 2, 'ieee');
/** 1-5-6 in 12 bits, largest value 65024; inputs of the Linear after attention [TR §3.3.3]. */
export const E5M6 = new Minifloat('e5m6', 5, 6, 'ieee');
/** 1-2-1, largest value 6 [OCP MX §5.3.3]. */
export const E2M1 = new Minifloat('e2m1', 2, 1, 'finite');
/** 1-3-2, largest value 28 [OCP MX §5.3.2]. */
export const E3M2 = new Minifloat('e3m2', 3, 2, 'finite');
/** 1-2-3, largest value 7.5 [OCP MX §5.3.2]. */
export const E2M3 = new Minifloat('e2m3', 2, 3, 'finite');
/** IEEE 754 binary16. */
export const FP16 = new Minifloat('fp16', 5, 10, 'ieee', 'infinity');
/** BF16 under the interface of the small formats; bf16.ts is the quick way. NaN keeps its sign here. */
export const BF16 = new Minifloat('bf16', 8, 7, 'ieee', 'infinity');
