import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  decodeBf16,
  decodeBf16Array,
  encodeBf16,
  encodeBf16Array,
  roundBf16,
} from '../../src/numerics/bf16.js';
import { E4M3, E5M2, E5M6 } from '../../src/numerics/minifloat.js';
import { dequantizeBlocks, quantizeBlocks, quantizeTiles, scaleOf } from '../../src/numerics/tiles.js';

const golden = (name: string) =>
  JSON.parse(readFileSync(new URL(`../goldens/numerics/${name}.json`, import.meta.url), 'utf8'));

const floats = (bits: number[]) => new Float32Array(Uint32Array.from(bits).buffer);
const bitsOf = (values: Float32Array) => [...new Uint32Array(values.buffer)];
const hex = (bits: number) => `0x${bits.toString(16)}`;

/** Golden pairs of FP32 bits and codes; written by scripts/goldens/float8.py. */
type Pairs = [number[], number[]];
const formats = golden('formats') as Record<string, { encode: Pairs; decode?: (number | null)[] }>;

describe('number formats against PyTorch and ml_dtypes', () => {
  const encoders: Record<string, (x: number) => number> = {
    e4m3: (x) => E4M3.encode(x),
    e5m2: (x) => E5M2.encode(x),
    e5m6: (x) => E5M6.encode(x),
    bf16: encodeBf16,
  };
  for (const [name, encode] of Object.entries(encoders)) {
    it(`${name}: encodes ties, neighbours of ties, subnormals and random values alike`, () => {
      const [bits, codes] = formats[name]!.encode;
      const inputs = floats(bits);
      const wrong = codes.flatMap((code, i) => {
        const got = encode(inputs[i]!);
        return got === code
          ? []
          : [`${inputs[i]} (${hex(bits[i]!)}): got ${hex(got)}, expected ${hex(code)}`];
      });
      expect(codes.length).toBeGreaterThan(500);
      expect(wrong).toEqual([]);
    });
  }

  for (const format of [E4M3, E5M2]) {
    it(`${format.name}: decodes every code alike`, () => {
      const want = formats[format.name]!.decode!;
      const got = bitsOf(format.values).map((bits, code) =>
        Number.isNaN(format.decode(code)) ? null : bits,
      );
      expect(got).toEqual(want);
    });
  }
});

describe('minifloat', () => {
  it('has the published largest values', () => {
    expect([E4M3.maxFinite, E5M2.maxFinite, E5M6.maxFinite]).toEqual([448, 57344, 65024]);
  });

  for (const format of [E4M3, E5M2, E5M6]) {
    it(`${format.name}: saturates, keeps NaN and the sign of zero`, () => {
      const { maxFinite } = format;
      for (const x of [maxFinite * 1.01, 1e38, Number.POSITIVE_INFINITY]) {
        expect(format.decode(format.encode(x))).toBe(maxFinite);
        expect(format.decode(format.encode(-x))).toBe(-maxFinite);
      }
      expect(format.decode(format.encode(Number.NaN))).toBeNaN();
      expect(format.decode(format.encode(-0))).toBe(-0);
    });

    it(`${format.name}: encodes each of its own values as itself`, () => {
      format.values.forEach((value, code) => {
        if (Number.isFinite(value)) expect(format.encode(value)).toBe(code);
      });
    });
  }

  it('E5M6: every value is a BF16 value, also times a power of two', () => {
    for (const value of E5M6.values) {
      if (!Number.isFinite(value)) continue;
      expect(roundBf16(value)).toBe(value);
      expect(roundBf16(value * 2 ** -20)).toBe(value * 2 ** -20);
    }
  });
});

describe('bf16', () => {
  it('encodes NaN as 0x7fc0, also where rounding up would carry into infinity', () => {
    const nan = floats([0x7f800001, 0x7fffffff, 0xffffffff]);
    expect([...encodeBf16Array(nan)]).toEqual([0x7fc0, 0x7fc0, 0x7fc0]);
    expect(encodeBf16(Number.NaN)).toBe(0x7fc0);
  });

  it('turns arrays into codes and back', () => {
    const codes = Uint16Array.from({ length: 0x10000 }, (_, i) => i).filter((c) => (c & 0x7fff) <= 0x7f80);
    const values = decodeBf16Array(codes);
    const same = (got: Uint16Array) => got.every((code, i) => code === codes[i]);
    expect(same(encodeBf16Array(values))).toBe(true);
    expect(same(encodeBf16Array(Float64Array.from(values)))).toBe(true);
    expect([...codes.subarray(0, 300)].map(decodeBf16)).toEqual([...values.subarray(0, 300)]);
  });
});

interface TileGolden {
  shape: [number, number];
  bits: number[];
  fp32: { codes: number[]; scales: number[] };
  pow2: { codes: number[]; scales: number[] };
}

/** [rows, tiles] → [tiles, rows], the order of our tile scales. */
const tileMajor = (scales: number[], rows: number) =>
  scales.map((_, i) => scales[(i % rows) * (scales.length / rows) + Math.floor(i / rows)]!);

describe('tiles against PyTorch', () => {
  const { activation, weight } = golden('tiles') as { activation: TileGolden; weight: TileGolden };
  for (const mode of ['fp32', 'pow2'] as const) {
    it(`1x128 tiles, ${mode} scales: codes and scales bit for bit`, () => {
      const [rows, cols] = activation.shape;
      const codes = new Uint8Array(rows * cols);
      const scales = new Float32Array(2 * rows);
      quantizeTiles(floats(activation.bits), cols, 128, E4M3, mode, codes, scales);
      expect(bitsOf(scales)).toEqual(tileMajor(activation[mode].scales, rows));
      expect([...codes]).toEqual(activation[mode].codes);
    });

    it(`128x128 blocks, ${mode} scales: codes and scales bit for bit, and back`, () => {
      const [rows, cols] = weight.shape;
      const values = floats(weight.bits);
      const codes = new Uint8Array(rows * cols);
      const scales = new Float32Array(4);
      quantizeBlocks(values, cols, 128, E4M3, mode, codes, scales);
      expect(bitsOf(scales)).toEqual(weight[mode].scales);
      expect([...codes]).toEqual(weight[mode].codes);

      const back = new Float32Array(values.length);
      dequantizeBlocks(codes, cols, 128, E4M3, scales, back);
      // Half a step of 3 mantissa bits, or half of the smallest subnormal step, 2^-9, at the block's scale.
      back.forEach((value, i) => {
        const scale = scales[Math.floor(i / cols / 128) * 2 + Math.floor((i % cols) / 128)]!;
        const bound = Math.max(Math.abs(values[i]!) * 2 ** -4, scale * 2 ** -10) * (1 + 2 ** -20);
        if (!(Math.abs(value - values[i]!) <= bound))
          expect.fail(`element ${i}: ${values[i]} became ${value}`);
      });
    });
  }

  it('gives all-zero tiles scale 1 and tiles that are not finite scale NaN', () => {
    expect(scaleOf(0, 448, 'fp32')).toBe(1);
    expect(scaleOf(0, 448, 'pow2')).toBe(1);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      for (const mode of ['fp32', 'pow2'] as const) expect(scaleOf(bad, 448, mode)).toBeNaN();
    }
    const codes = new Uint8Array(4);
    const scales = new Float32Array(1);
    quantizeTiles(Float32Array.of(1, Number.NaN, 3, 4), 4, 128, E4M3, 'fp32', codes, scales);
    expect([...codes].map((code) => E4M3.decode(code))).toEqual([NaN, NaN, NaN, NaN]);
    expect(scales[0]).toBeNaN();
  });

  it('pow2 is the least power of two that maps the maximum into the format, for all formats', () => {
    for (const { maxFinite } of [E4M3, E5M2, E5M6]) {
      for (let exponent = -60; exponent <= 60; exponent++) {
        const top = Math.fround(maxFinite * 2 ** exponent);
        const above = floats([bitsOf(Float32Array.of(top))[0]! + 1])[0]!;
        expect(scaleOf(top, maxFinite, 'pow2')).toBe(2 ** exponent);
        expect(scaleOf(above, maxFinite, 'pow2')).toBe(2 ** (exponent + 1));
      }
    }
  });
});
