import { describe, expect, it } from 'vitest';
import { addonProblem, type InstructionSet, loadAddon } from '../../src/backend/native/addon.js';
import { nativeLogFmt } from '../../src/backend/native/logfmt.js';
import { encodeBf16Array } from '../../src/numerics/bf16.js';
import { type LogFmtCodec, logFmtBytes, referenceLogFmt } from '../../src/numerics/logfmt.js';
import { FP16 } from '../../src/numerics/minifloat.js';
import { Random } from '../../src/numerics/random.js';

const LEVELS: readonly InstructionSet[] = ['portable', 'avx2', 'avx512', 'amx'];
const addon = loadAddon();

/** All finite FP16 values, every `stride`-th after the other: stride 1 gives tiles of one or two octaves. */
function everyFp16(stride: number): Float32Array {
  const finite = FP16.values.filter(Number.isFinite);
  return Float32Array.from(finite, (_, i) => finite[(i * stride) % finite.length]!);
}

const random = Random.stream(3, 'logfmt');
const drawn = (length: number, draw: () => number) => Float32Array.from({ length }, draw);

/** Rows of 1000: seven whole tiles and one of 104. */
const INPUTS: Record<string, { values: Float32Array; cols: number; bits: number[] }> = {
  'all FP16 values, neighbours together': { values: everyFp16(1), cols: 63488, bits: [8, 10] },
  'all FP16 values, mixed': { values: everyFp16(1009), cols: 63488, bits: [8, 10] },
  'normal values': {
    values: drawn(2000, () => random.normal()),
    cols: 1000,
    bits: [4, 5, 6, 7, 9, 11, 12, 13, 15, 16],
  },
  'beyond 2^32 in one tile': {
    values: drawn(4000, () => random.normal() * 2 ** (60 * random.uniform())),
    cols: 1000,
    bits: [4, 8, 10, 14],
  },
  'many zeros of both signs': {
    values: drawn(4000, () => (random.uniform() < 0.5 ? random.normal() * 0 : random.normal())),
    cols: 1000,
    bits: [4, 8, 10],
  },
  'a few ulp apart': {
    values: drawn(4000, () => 1 + random.below(30) * 2 ** -23),
    cols: 1000,
    bits: [8, 16],
  },
  'all equal': { values: new Float32Array(1000).fill(-0.7), cols: 1000, bits: [8, 10] },
  'all zero': { values: new Float32Array(1000), cols: 1000, bits: [8, 10] },
  'near the largest number': {
    values: drawn(2000, () => Math.fround((0.3 + 0.7 * random.uniform()) * 3.4028234e38)),
    cols: 1000,
    bits: [6, 8, 10],
  },
  subnormal: { values: drawn(2000, () => (random.uniform() - 0.5) * 1e-38), cols: 1000, bits: [8, 10, 12] },
  'rows of three': { values: drawn(30, () => random.normal()), cols: 3, bits: [4, 5, 8, 10, 16] },
};

/** First place where two arrays differ in bits, for a message that says where. */
function difference(got: ArrayBufferView, want: ArrayBufferView): string | undefined {
  const [a, b] = [got, want].map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  const at = a!.findIndex((byte, i) => byte !== b![i]);
  return at < 0 ? undefined : `byte ${at}: ${a![at]} instead of ${b![at]}`;
}

if (addon) {
  const { best } = addon.info();
  const levels = LEVELS.slice(0, LEVELS.indexOf(best) + 1);
  const codecs = levels.map((level) => ({ level, codec: nativeLogFmt(addon.forIsa(level)) }));

  describe('the native LogFMT codec has the bits of the reference', () => {
    for (const [name, { values, cols, bits }] of Object.entries(INPUTS)) {
      it.each(bits)(`${name}, %d bits, both roundings, FP32 and BF16, every level`, (n) => {
        // The largest FP32 numbers would become infinity in BF16.
        const brain = encodeBf16Array(values.map((x) => Math.min(Math.max(x, -3.38e38), 3.38e38)));
        const want = run(referenceLogFmt, values, brain, cols, n);
        for (const { level, codec } of codecs) {
          const got = run(codec, values, brain, cols, n);
          expect(Object.entries(got).map(([part, a]) => [level, part, difference(a, want[part]!)])).toEqual(
            Object.keys(got).map((part) => [level, part, undefined]),
          );
        }
      });
    }
  });

  it('the native codec names the first tile that is not finite, and damaged tiles', () => {
    const values = new Float32Array(128 * 400).fill(1);
    values[128 * 399] = Number.NaN;
    values[128 * 300 + 5] = Number.POSITIVE_INFINITY;
    for (const { codec } of codecs) {
      expect(() => codec.encode(values, 128 * 4, 8)).toThrow(/tile 300 \(row 75, from column 0\)/);
      const wire = new Uint8Array(logFmtBytes(1, 128, 8)).fill(0xff);
      expect(() => codec.decode(wire, 128, 8, new Float32Array(128))).toThrow(
        /tile 0 of LogFMT-8 data is damaged/,
      );
      expect(() => codec.decode(wire, 128, 9, new Float32Array(128))).toThrow(/take 152 bytes/);
    }
  });
} else {
  describe.skip('native LogFMT', () => it(addonProblem(), () => {}));
}

/** Everything that the codec gives for these values. */
function run(codec: LogFmtCodec, values: Float32Array, brain: Uint16Array, cols: number, bits: number) {
  const linear = codec.encode(values, cols, bits);
  return {
    linear,
    log: codec.encode(values, cols, bits, 'log'),
    fromBf16: codec.encode(brain, cols, bits),
    values: codec.decode(linear, cols, bits, new Float32Array(values.length)),
    toBf16: codec.decode(linear, cols, bits, new Uint16Array(values.length)),
  } as Record<string, ArrayBufferView>;
}
