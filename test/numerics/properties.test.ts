import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exp, logRatio } from '../../src/numerics/elementary.js';
import { NUMBER_FORMATS, type NumberFormat, type NumberFormatName } from '../../src/numerics/formats.js';
import {
  decodeLogFmt,
  encodeLogFmt,
  LogFmtGrid,
  type LogFmtHeader,
  logFmtBytes,
  logFmtHeader,
} from '../../src/numerics/logfmt.js';
import { packCodes, packedBytes, unpackCodes } from '../../src/numerics/packing.js';
import { Random } from '../../src/numerics/random.js';
import { nearestEven, stochastic, truncate } from '../../src/numerics/rounding.js';
import { BLOCK_FORMATS, BLOCKS, dequantizeMatrix, quantizeMatrix } from '../../src/numerics/scaled.js';

const float = fc.float({ noNaN: true, noDefaultInfinity: true });
const SIGNED = (Object.keys(NUMBER_FORMATS) as NumberFormatName[]).filter((name) => name !== 'e8m0');

/** Distance from the value of `code` to the next one up in magnitude, or down at the top. */
function localStep(format: NumberFormat, code: number): number {
  const size = Math.abs(format.decode(code));
  const sizes = [...new Set([...format.values].filter((v) => v >= 0 && Number.isFinite(v)))].sort(
    (a, b) => a - b,
  );
  const at = sizes.indexOf(size);
  return at + 1 < sizes.length ? sizes[at + 1]! - size : size - sizes[at - 1]!;
}

describe.each(SIGNED)('%s', (name) => {
  const format: NumberFormat = NUMBER_FORMATS[name];
  const inRange = fc.double({ min: -format.maxFinite, max: format.maxFinite, noNaN: true }).map(Math.fround);
  const round = (x: number) => format.decode(format.encode(x));

  it('is monotone, sign-symmetric and idempotent', () => {
    fc.assert(
      fc.property(float, float, (a, b) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        expect(round(low)).toBeLessThanOrEqual(round(high));
        expect(round(-a) + 0).toBe(-round(a) + 0);
        if (Number.isFinite(round(a))) expect(round(round(a))).toBe(round(a));
      }),
    );
  });

  it('is within half a local step, truncation within one and never larger', () => {
    fc.assert(
      fc.property(inRange, (x) => {
        const code = format.encode(x);
        expect(Math.abs(format.decode(code) - x)).toBeLessThanOrEqual(localStep(format, code) / 2);
        const cut = format.decode(format.encode(x, truncate));
        expect(Math.abs(cut)).toBeLessThanOrEqual(Math.abs(x));
        expect(Math.abs(x - cut)).toBeLessThan(localStep(format, format.encode(cut)));
      }),
      { numRuns: name === 'bf16' || name === 'fp16' ? 20 : 100 }, // localStep looks through all values
    );
  });
});

describe('stochastic rounding', () => {
  it('hits the value on average, and repeats with its seed', () => {
    const { e4m3 } = NUMBER_FORMATS;
    const x = 17.3; // between 16 and 18
    const draw = (seed: number) => {
      const rounding = stochastic(new Random(seed));
      return Array.from({ length: 4000 }, () => e4m3.decode(e4m3.encode(x, rounding)));
    };
    const values = draw(1);
    expect(new Set(values)).toEqual(new Set([16, 18]));
    // The mean of 4000 draws has the standard deviation 2 · sqrt(0.65 · 0.35 / 4000) = 0.015; four of them.
    expect(Math.abs(values.reduce((a, b) => a + b) / values.length - x)).toBeLessThan(0.06);
    expect(draw(1)).toEqual(values);
    expect(draw(2)).not.toEqual(values);
  });
});

describe('packing', () => {
  it('gives back every code at every width, without gaps', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 16 }),
        fc.array(fc.nat(65535), { maxLength: 70 }),
        (bits, list) => {
          const codes = list.map((code) => code & (2 ** bits - 1));
          const bytes = new Uint8Array(packedBytes(codes.length, bits) + 2).fill(
            0xaa,
            packedBytes(codes.length, bits),
          );
          const end = packCodes(codes, 0, codes.length, bits, bytes, 0);
          expect(end).toBe(Math.ceil((codes.length * bits) / 8));
          const back: number[] = [];
          unpackCodes(bytes, 0, codes.length, bits, back, 0);
          expect(back).toEqual(codes);
          const whole = codes.reduce((sum, code, i) => sum | (BigInt(code) << BigInt(i * bits)), 0n);
          const joined = [...bytes.subarray(0, end)].reduceRight(
            (sum, byte) => (sum << 8n) | BigInt(byte),
            0n,
          );
          expect(joined).toBe(whole);
        },
      ),
    );
  });
});

describe('exp and logRatio', () => {
  it('are within 2 ulp of Math.exp and Math.log1p', () => {
    fc.assert(
      fc.property(fc.double({ min: -100, max: 100, noNaN: true }), (x) => {
        expect(Math.abs(exp(x) / Math.exp(x) - 1)).toBeLessThan(2 ** -51);
      }),
    );
    const positive = fc.float({ min: Math.fround(1e-45), noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(positive, positive, (x, y) => {
        const want =
          x === y ? 0 : x > y / 2 && x < 2 * y ? Math.log1p((x - y) / y) : Math.log(x) - Math.log(y);
        // The comparison itself loses some bits where two logarithms are subtracted.
        expect(Math.abs(logRatio(x, y) - want)).toBeLessThanOrEqual(
          2 ** -50 * Math.max(Math.abs(want), 2 ** -20) + 2 ** -45,
        );
        expect(logRatio(y, x) + 0).toBe(-logRatio(x, y) + 0); // either zero where x is y
      }),
    );
  });
});

/** Headers as tiles have them: up to 32 octaves anywhere in FP32. */
const headers = fc
  .tuple(
    fc.integer({ min: 4, max: 16 }),
    fc.float({ min: Math.fround(1e-30), max: Math.fround(1e28), noNaN: true }),
    fc.double({ min: 1, max: 2 ** 32, noNaN: true }),
  )
  .map(([bits, least, ratio]) => ({ bits, header: logFmtHeader(least, Math.fround(least * ratio), bits) }));

describe('LogFMT', () => {
  it('is monotone, sign-symmetric and idempotent on a grid', () => {
    fc.assert(
      fc.property(
        headers,
        fc.double({ min: 0, max: 1.2, noNaN: true }),
        fc.double({ min: 0, max: 1.2, noNaN: true }),
        ({ bits, header }, p, q) => {
          const grid = new LogFmtGrid(bits, header);
          const [low, high] = [at(header, grid, Math.min(p, q)), at(header, grid, Math.max(p, q))];
          const round = (x: number) => grid.decode(grid.encode(x));
          expect(round(low)).toBeLessThanOrEqual(round(high));
          expect(round(-low) + 0).toBe(-round(low) + 0);
          expect(round(round(low))).toBe(round(low));
        },
      ),
    );
  });

  it('is within half the distance of the two grid values around', () => {
    fc.assert(
      fc.property(headers, fc.double({ min: 0, max: 1, noNaN: true }), ({ bits, header }, p) => {
        const grid = new LogFmtGrid(bits, header);
        const x = at(header, grid, p);
        if (x > grid.magnitude(grid.top)) return;
        const k = grid.encode(x);
        const gaps = [
          k > 0 ? grid.magnitude(k) - grid.magnitude(k - 1) : 0,
          k < grid.top ? grid.magnitude(k + 1) - grid.magnitude(k) : 0,
        ];
        const error = x - grid.magnitude(k);
        expect(Math.abs(error)).toBeLessThanOrEqual((error < 0 ? gaps[0]! : gaps[1]!) / 2);
      }),
    );
  });

  it('gives every K of a grid its own code back, min K = 1 and max the last', () => {
    for (const bits of [4, 8, 10]) {
      const grid = new LogFmtGrid(bits, logFmtHeader(0.01, 37, bits));
      for (let code = 0; code < 2 ** bits; code++) expect(grid.encode(grid.decode(code))).toBe(code);
      expect([grid.encode(0.01), grid.encode(-37)]).toEqual([1, 2 ** bits - 1]);
    }
  });

  it('counts its bytes, whole tiles and shorter ones', () => {
    expect(logFmtBytes(1, 128, 8)).toBe(136);
    expect(logFmtBytes(3, 7168, 10)).toBe(3 * 56 * 168);
    expect(logFmtBytes(2, 130, 9)).toBe(2 * (8 + 144 + 8 + 3));
    fc.assert(
      fc.property(fc.integer({ min: 4, max: 16 }), fc.integer({ min: 1, max: 300 }), (bits, cols) => {
        const values = Float32Array.from({ length: 2 * cols }, (_, i) => Math.sin(i * 12.9898) * 7);
        const wire = encodeLogFmt(values, cols, bits);
        expect(wire.length).toBe(logFmtBytes(2, cols, bits));
        const back = decodeLogFmt(wire, cols, bits, new Float32Array(values.length));
        expect(encodeLogFmt(back, cols, bits).length).toBe(wire.length);
      }),
      { numRuns: 30 },
    );
  });

  it('flushes only what is nearer to zero than to 2^-32 of the maximum', () => {
    const values = Float32Array.of(1, 2 ** -32, 2 ** -33 * 1.001, 2 ** -33 * 0.999, 2 ** -60, 0);
    const back = decodeLogFmt(encodeLogFmt(values, 6, 8), 6, 8, new Float32Array(6));
    expect([...back].map((x) => x > 0)).toEqual([true, true, true, false, false, false]);
    const log = decodeLogFmt(encodeLogFmt(values, 6, 8, 'log'), 6, 8, new Float32Array(6));
    expect([...log].map((x) => x > 0)).toEqual([true, true, true, true, true, false]);
  });

  it('rounds in logarithm at the geometric mean, which lies below the middle', () => {
    const grid = new LogFmtGrid(4, logFmtHeader(1, 64, 4));
    const [low, high] = [grid.magnitude(3), grid.magnitude(4)];
    const between = Math.fround((Math.sqrt(low * high) + (low + high) / 2) / 2);
    expect([grid.encode(between), grid.encode(between, 'log')]).toEqual([3, 4]);
  });

  it('refuses NaN, infinity, other widths, and damaged or cut data, saying where', () => {
    const values = new Float32Array(600).fill(1);
    values[430] = Number.NaN;
    expect(() => encodeLogFmt(values, 300, 8)).toThrow(/tile 4 \(row 1, from column 128\)/);
    values[430] = Number.NEGATIVE_INFINITY;
    expect(() => encodeLogFmt(values, 300, 8)).toThrow(/cannot hold NaN or infinity/);
    for (const bits of [3, 17, 8.5]) expect(() => encodeLogFmt(values, 300, bits)).toThrow(/4 to 16 bits/);
    const wire = encodeLogFmt(new Float32Array(300).fill(2), 300, 8);
    expect(() => decodeLogFmt(wire.subarray(1), 300, 8, new Float32Array(300))).toThrow(/take 324 bytes/);
    new DataView(wire.buffer).setFloat32(136 + 4, Number.NaN, true);
    expect(() => decodeLogFmt(wire, 300, 8, new Float32Array(300))).toThrow(
      /tile 1 of LogFMT-8 data is damaged/,
    );
  });
});

/** The value that lies `share` of the way through the grid, in logarithm. */
function at({ min }: LogFmtHeader, grid: LogFmtGrid, share: number): number {
  const top = Math.log(grid.magnitude(grid.top));
  return Math.fround(Math.min(Math.exp(min + (top - min) * share), 3e38));
}

describe('scaled matrices', () => {
  const sizes = { tensor: BLOCKS.tensor(), row: BLOCKS.row(), tile: BLOCKS.tile(8), block: BLOCKS.block(4) };
  const values = fc.float32Array({
    minLength: 60,
    maxLength: 60,
    noNaN: true,
    max: Math.fround(1e20),
    min: Math.fround(-1e20),
  });

  it.each(Object.entries(sizes))(
    '%s: the largest of each block is exact, every error within half a step of it',
    (_, block) => {
      fc.assert(
        fc.property(values, fc.constantFrom('fp32', 'pow2'), (x, rule) => {
          const format = NUMBER_FORMATS.e4m3;
          const back = dequantizeMatrix(quantizeMatrix(x, 20, { format, scaling: { block, rule } }));
          const largest = Math.max(...x.map(Math.abs));
          // E4M3's largest step is 32 of 448; a power of two may waste one bit. FP32 rounds scale and product.
          const bound = largest * ((rule === 'pow2' ? 32 : 16) / 448) * (1 + 2 ** -20) + 2 ** -126;
          x.forEach((value, i) => {
            expect(Math.abs(back[i]! - value)).toBeLessThanOrEqual(bound);
          });
        }),
        { numRuns: 50 },
      );
    },
  );

  it('marks blocks that are not finite with the scale NaN and leaves the others alone', () => {
    const x = new Float32Array(64).fill(1);
    x[40] = Number.POSITIVE_INFINITY;
    for (const scaled of Object.values(BLOCK_FORMATS)) {
      if (scaled.scaling.rule === 'nvfp4') continue; // its one scale for the matrix spoils all
      const back = dequantizeMatrix(quantizeMatrix(x, 64, scaled));
      expect([back[0], back[31]]).toEqual([1, 1]);
      expect([back[32], back[63]]).toEqual([Number.NaN, Number.NaN]);
    }
  });

  it('rounds as it is told', () => {
    const x = Float32Array.from({ length: 32 }, (_, i) => i + 0.5);
    const scaled = {
      format: NUMBER_FORMATS.int8,
      scaling: { block: BLOCKS.tensor(), rule: 'none' as const },
    };
    const round = (rounding: typeof truncate) => [
      ...dequantizeMatrix(quantizeMatrix(x, 32, scaled, rounding)),
    ];
    expect(round(truncate)).toEqual(Array.from(x, Math.floor));
    expect(round(nearestEven)).toEqual(Array.from(x, (v) => 2 * Math.round((v - 1e-9) / 2)));
  });
});
