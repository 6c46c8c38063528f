import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decodeBf16Array, encodeBf16 } from '../../src/numerics/bf16.js';
import { NUMBER_FORMATS, type NumberFormat, type NumberFormatName } from '../../src/numerics/formats.js';
import { BF16, FP16 } from '../../src/numerics/minifloat.js';
import {
  BLOCK_FORMATS,
  dequantizeMatrix,
  loadMatrix,
  quantizeMatrix,
  storeMatrix,
} from '../../src/numerics/scaled.js';

/** A list that is too long to keep: its SHA-256 and each 97th element. */
interface Digest {
  sha256: string;
  samples: number[];
}
type Source = 'fp16' | 'bf16' | 'middles';
type Block = { codes: number[]; scales: number[]; values: number[]; matrixScale?: number };
interface Golden {
  decode: Record<string, (number | null)[] | Digest>;
  encode: Record<string, Record<Source, Digest>>;
  blocks: { shape: [number, number]; input: number[] } & Record<keyof typeof BLOCK_FORMATS, Block>;
}

/** Written by scripts/goldens/number_formats.py from ml_dtypes and PyTorch. */
const golden: Golden = JSON.parse(
  readFileSync(new URL('../goldens/numerics/exhaustive.json', import.meta.url), 'utf8'),
);
const STRIDE = 97;

function expectDigest(list: Uint16Array | Uint32Array, want: Digest): void {
  expect([...list.filter((_, i) => i % STRIDE === 0)]).toEqual(want.samples);
  expect(createHash('sha256').update(new Uint8Array(list.buffer)).digest('hex')).toBe(want.sha256);
}

const bitsOf = (values: Float32Array) => new Uint32Array(values.buffer);

/** The values of every code; NaN as 0x7fc00000. */
function valueBits(format: NumberFormat): Uint32Array {
  const values = Float32Array.from({ length: 2 ** format.bits }, (_, code) => format.decode(code));
  return bitsOf(values).map((bits, code) => (Number.isNaN(values[code]) ? 0x7fc00000 : bits));
}

/** Every FP16 and every BF16 value, and the points around the middle between FP16 neighbours. */
function encodeInputs(): Record<Source, Float32Array> {
  const every = Uint16Array.from({ length: 65536 }, (_, code) => code);
  const fp16 = Float32Array.from(every, (code) => FP16.decode(code));
  const finite = [...new Set(fp16.filter(Number.isFinite))].sort((a, b) => a - b);
  const middle = Float32Array.from(finite.slice(1), (x, i) => (x + finite[i]!) / 2);
  const beside = (direction: 1 | -1) =>
    new Float32Array(bitsOf(middle).map((bits) => bits + (bits >>> 31 ? -direction : direction)).buffer);
  const middles = Float32Array.from([...middle, ...beside(-1), ...beside(1)]);
  return { fp16, bf16: decodeBf16Array(every), middles };
}

const inputs = encodeInputs();
const OUTSIDE = Object.keys(golden.decode) as NumberFormatName[];

describe('every code of every format', () => {
  it.each(OUTSIDE)('%s decodes as ml_dtypes and PyTorch do', (name) => {
    const want = golden.decode[name]!;
    const got = valueBits(NUMBER_FORMATS[name]);
    if (Array.isArray(want)) expect([...got]).toEqual(want.map((bits) => bits ?? 0x7fc00000));
    else expectDigest(got, want);
  });

  it.each(OUTSIDE)('%s encodes every FP16 and BF16 value, ties and their neighbours alike', (name) => {
    const format = NUMBER_FORMATS[name];
    for (const source of ['fp16', 'bf16', 'middles'] as const) {
      const codes = Uint16Array.from(inputs[source], (x) => codeOf(format, x));
      expectDigest(codes, golden.encode[name]![source]);
    }
  });

  it('int8 holds the integers of two’s complement and gives out all but -128', () => {
    const { int8 } = NUMBER_FORMATS;
    for (let code = 0; code < 256; code++) {
      expect(int8.decode(code)).toBe(new Int8Array([code])[0]);
      if (code !== 128) expect(int8.encode(int8.decode(code))).toBe(code);
    }
    expect([0.5, 1.5, -2.5, 126.5, 127.4, 500, -500].map((x) => int8.decode(int8.encode(x)))).toEqual([
      0, 2, -2, 126, 127, 127, -127,
    ]);
  });

  it('BF16 of the registry and of bf16.ts agree on every FP16 and BF16 value and on ties', () => {
    const numbers = Object.values(inputs).flatMap((list) => [...list.filter((x) => !Number.isNaN(x))]);
    expect(numbers.find((x) => BF16.encode(x) !== encodeBf16(x))).toBeUndefined();
  });
});

/** As the golden script: NaN is 0xffff; E8M0 is compared on what the libraries round to nearest. */
function codeOf(format: NumberFormat, x: number): number {
  if (format.name === 'e8m0') return format.encode(x >= 2 ** -126 ? x : 1);
  return Number.isNaN(x) ? 0xffff : format.encode(x);
}

describe('blocks with scales of their specification', () => {
  const { shape, input } = golden.blocks;
  const values = new Float32Array(Uint32Array.from(input).buffer);
  const scaleCode = (name: string, scale: number) =>
    NUMBER_FORMATS[name === 'nvfp4' ? 'e4m3' : 'e8m0'].encode(scale);

  it.each(Object.keys(BLOCK_FORMATS) as (keyof typeof BLOCK_FORMATS)[])(
    '%s: codes, scales, values',
    (name) => {
      const want = golden.blocks[name];
      const matrix = quantizeMatrix(values, shape[1], BLOCK_FORMATS[name]);
      expect([...matrix.scales].map((scale) => scaleCode(name, scale))).toEqual(want.scales);
      expect([...matrix.codes]).toEqual(want.codes);
      expect([...bitsOf(dequantizeMatrix(matrix))]).toEqual(want.values);
      if (want.matrixScale) expect(bitsOf(Float32Array.of(matrix.matrixScale))[0]).toBe(want.matrixScale);
    },
  );

  it.each(Object.keys(BLOCK_FORMATS) as (keyof typeof BLOCK_FORMATS)[])('%s: stored and loaded', (name) => {
    const matrix = quantizeMatrix(values, shape[1], BLOCK_FORMATS[name]);
    const stored = storeMatrix(matrix);
    expect(stored.codes.length).toBe((values.length * matrix.format.bits) / 8);
    expect(stored.scales.length).toBe(matrix.scales.length);
    expect(loadMatrix(stored, shape[0], shape[1], BLOCK_FORMATS[name])).toEqual(matrix);
  });
});
