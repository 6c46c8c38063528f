import { exponentOf } from './elementary.js';
import { BF16, E2M1, E2M3, E3M2, E4M3, E5M2, E5M6, FP16 } from './minifloat.js';
import { nearestEven, type Rounding } from './rounding.js';

/** A set of numbers, each with a code of `bits` bits. */
export interface NumberFormat {
  readonly name: string;
  readonly bits: number;
  /** Largest finite value. */
  readonly maxFinite: number;
  /** Smallest positive value. */
  readonly smallest: number;
  /** Value of every code, [2^bits]. */
  readonly values: Float32Array;
  /**
   * Code of `value`, which is rounded to FP32 first; nearest even by default. Beyond the largest value it saturates,
   * or overflows to infinity in FP16 and BF16.
   * @throws RangeError for NaN where the format has none
   */
  encode(value: number, rounding?: Rounding): number;
  /** Value of a code, exact. */
  decode(code: number): number;
}

/**
 * Integers −127..127 in two's complement. Code 128, which would be −128, is never given out, so that negation is
 * exact.
 */
class Int8 implements NumberFormat {
  readonly name = 'int8';
  readonly bits = 8;
  readonly maxFinite = 127;
  readonly smallest = 1;
  readonly values = Float32Array.from({ length: 256 }, (_, code) => (code << 24) >> 24);

  encode(value: number, rounding: Rounding = nearestEven): number {
    if (Number.isNaN(value)) throw new RangeError('int8 has no code for NaN');
    const magnitude = Math.min(rounding(Math.min(Math.abs(Math.fround(value)), 128)), 127);
    return (value < 0 ? -magnitude : magnitude) & 0xff;
  }

  decode(code: number): number {
    return this.values[code]!;
  }
}

/** To the nearest, halves up. */
const halfUp: Rounding = (steps) => Math.floor(steps + 0.5);

/**
 * Powers of two 2^(code − 127), the scales of MX formats; 255 is NaN [OCP MX §5.4.1]. There is neither sign nor zero:
 * zero and what lies below 2^-127 become 2^-127; negative numbers, infinity, and what rounds beyond 2^127 become NaN.
 * The point 1.5·2^k between two neighbours goes up, as in PyTorch and ml_dtypes.
 */
class ExponentOnly implements NumberFormat {
  readonly name = 'e8m0';
  readonly bits = 8;
  readonly maxFinite = 2 ** 127;
  readonly smallest = 2 ** -127;
  readonly values = Float32Array.from({ length: 256 }, (_, code) =>
    code === 255 ? Number.NaN : 2 ** (code - 127),
  );

  encode(value: number, rounding: Rounding = halfUp): number {
    const x = Math.fround(value);
    if (!(x >= 0 && x < Number.POSITIVE_INFINITY)) return 255;
    if (x <= this.smallest) return 0;
    const exponent = exponentOf(x);
    return exponent + 127 + rounding(x / 2 ** exponent - 1);
  }

  decode(code: number): number {
    return this.values[code]!;
  }
}

export const INT8 = new Int8();
export const E8M0 = new ExponentOnly();

/** Every format by its name. */
export const NUMBER_FORMATS = {
  bf16: BF16,
  fp16: FP16,
  e5m6: E5M6,
  e4m3: E4M3,
  e5m2: E5M2,
  e3m2: E3M2,
  e2m3: E2M3,
  e2m1: E2M1,
  int8: INT8,
  e8m0: E8M0,
} as const satisfies Record<string, NumberFormat>;
export type NumberFormatName = keyof typeof NUMBER_FORMATS;
