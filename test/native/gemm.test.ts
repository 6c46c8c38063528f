import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { type Addon, addonProblem, type InstructionSet, loadAddon } from '../../src/backend/native/addon.js';
import { decodeBf16, encodeBf16Array } from '../../src/numerics/bf16.js';
import { E4M3, E5M2 } from '../../src/numerics/minifloat.js';
import { Random } from '../../src/numerics/random.js';

/**
 * The GEMM family by itself, against sums in FP64: sizes beyond one internal block (pieces of the contraction, columns
 * of several tasks, slices of rows), which the conformance suite is too small for, outside goldens, and wrong input.
 */
const [F32, BF16, E4M3_CODE, E5M2_CODE, E5M6] = [0, 1, 2, 3, 4] as const;
const [FP32_SCALE, POW2_SCALE] = [0, 1] as const;
const FORMAT_NAMES = ['f32', 'bf16', 'e4m3', 'e5m2', 'e5m6'];
type Values = Float32Array;
type Codes = Float32Array | Uint16Array | Uint8Array;

const addon = loadAddon();
const ALL: readonly InstructionSet[] = ['portable', 'avx2', 'avx512', 'amx'];
const LEVELS = addon ? ALL.slice(0, ALL.indexOf(addon.info().best) + 1) : [];
const threads = addon?.info().threads ?? 1;

const tiles = (depth: number): number => Math.ceil(depth / 128);
const narrow = (format: number): boolean => format >= E4M3_CODE;

function normal(count: number, seed: number): Values {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal());
}

function codesOf(format: number, count: number): Codes {
  if (format === F32) return new Float32Array(count);
  return format === BF16 || format === E5M6 ? new Uint16Array(count) : new Uint8Array(count);
}

/** The value of a stored code. */
function decoded(code: number, format: number): number {
  if (format === E4M3_CODE) return E4M3.decode(code);
  if (format === E5M2_CODE) return E5M2.decode(code);
  return format === F32 ? code : decodeBf16(code);
}

interface Operand {
  codes: Codes;
  /** [ceil(K/128), M] */
  scales: Values | undefined;
  /** What the kernel should multiply, [M, K]. */
  values: Values;
}

/** x [M, K] quantised by the kernel; its values decoded here. */
function operand(kernels: Addon, x: Values, m: number, k: number, format: number, mode: number): Operand {
  const codes = codesOf(format, m * k);
  const folded = format === E5M6 && mode === POW2_SCALE;
  const scales = narrow(format) && !folded ? new Float32Array(tiles(k) * m) : undefined;
  kernels.quantize(x, m, k, format, mode, codes, scales);
  const scaleAt = (i: number) => scales?.[Math.floor((i % k) / 128) * m + Math.floor(i / k)] ?? 1;
  return { codes, scales, values: Float32Array.from(codes, (c, i) => decoded(c, format) * scaleAt(i)) };
}

interface Weight {
  packed: Values | Uint16Array;
  scales: Values | undefined;
  /** What the kernel should multiply, [N, K]. */
  values: Values;
}

/** w [N, K] packed by the kernel for contraction over K; unpacked here by the layout of native/gemm.h. */
function weight(kernels: Addon, w: Values, n: number, k: number, format: number): Weight {
  const bytes = kernels.packedBytes(n, k, format);
  const packed = format === F32 ? new Float32Array(bytes / 4) : new Uint16Array(bytes / 2);
  const columns = Math.ceil(n / 16) * 16;
  const scales = narrow(format) ? new Float32Array(tiles(k) * columns) : undefined;
  kernels.packWeight(w, 1, n, k, false, format, FP32_SCALE, packed, scales);
  const values = new Float32Array(n * k);
  for (let row = 0; row < n; row++) {
    for (let i = 0; i < k; i++) {
      const scale = scales?.[Math.floor(i / 128) * columns + row] ?? 1;
      values[row * k + i] = packedValue(packed, row, i, k) * scale;
    }
  }
  return { packed, scales, values };
}

/** Element (k = i, column) of panels of 16 columns: floats row by row, BF16 in pairs of k, k padded to 32. */
function packedValue(packed: Values | Uint16Array, column: number, i: number, k: number): number {
  const [panel, lane] = [Math.floor(column / 16), column % 16];
  if (packed instanceof Float32Array) return packed[panel * k * 16 + i * 16 + lane]!;
  const depth = Math.ceil(k / 32) * 32;
  return decodeBf16(packed[panel * depth * 16 + (Math.floor(i / 2) * 16 + lane) * 2 + (i % 2)]!);
}

/** Σ_i a[m, i] b[n, i] in FP64 and Σ |a b|, which bounds the rounding. a [M, K], b [N, K] → [M, N]. */
function multiply(a: Values, b: Values, m: number, n: number, k: number) {
  const sum = new Float64Array(m * n);
  const size = new Float64Array(m * n);
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      let [s, z] = [0, 0];
      for (let i = 0; i < k; i++) {
        const p = a[row * k + i]! * b[column * k + i]!;
        s += p;
        z += Math.abs(p);
      }
      sum[row * n + column] = s;
      size[row * n + column] = z;
    }
  }
  return { sum, size };
}

/** A sum of n products in FP32, any order: at most (n + 2) 2^-24 Σ|p| (Higham, §3.1; 2 for the scales). BF16 rounds by 2^-9. */
function expectClose(
  got: Values | Uint16Array,
  want: ReturnType<typeof multiply>,
  terms: number,
  label: string,
) {
  const bf16 = got instanceof Uint16Array;
  for (let i = 0; i < want.sum.length; i++) {
    const value = bf16 ? decodeBf16(got[i]!) : got[i]!;
    const bound =
      (terms + 2) * 2 ** -24 * want.size[i]! + (bf16 ? 2 ** -8 * Math.abs(want.sum[i]!) : 0) + 1e-30;
    if (!(Math.abs(value - want.sum[i]!) <= bound)) {
      expect.fail(`${label}: element ${i} is ${value}, want ${want.sum[i]} ± ${bound}`);
    }
  }
}

/** Rows, columns and depth past one block of 32, one L1 piece of 512, and one task of columns (1 MB of BF16 weight). */
const SIZES: readonly [number, number, number][] = [
  [97, 70, 1100],
  [33, 530, 1030],
  [150, 48, 513],
];
const PAIRS: readonly [number, number][] = [
  [F32, F32],
  [BF16, BF16],
  [E4M3_CODE, E4M3_CODE],
  [E5M2_CODE, E4M3_CODE],
  [E5M6, E4M3_CODE],
];

afterEach(() => addon?.setThreads(threads));

describe.skipIf(!addon)(`GEMM of the native addon${addon ? '' : ` (${addonProblem()})`}`, () => {
  describe.each(LEVELS)('%s', (level) => {
    const kernels = addon!.forIsa(level) as Addon;

    for (const [m, n, k] of SIZES) {
      it(`multiplies ${m} × ${k} by ${k} × ${n} in every format`, () => {
        const [x, w] = [normal(m * k, 1), normal(n * k, 2)];
        for (const [aFormat, bFormat] of PAIRS) {
          const a = operand(kernels, x, m, k, aFormat, aFormat === E5M6 ? POW2_SCALE : FP32_SCALE);
          const b = weight(kernels, w, n, k, bFormat);
          const want = multiply(a.values, b.values, m, n, k);
          for (const out of [new Float32Array(m * n), new Uint16Array(m * n)]) {
            out.fill(Number.NaN);
            kernels.gemm(
              a.codes,
              aFormat,
              a.scales,
              m,
              k,
              b.packed,
              bFormat,
              b.scales,
              n,
              out,
              false,
              undefined,
            );
            expectClose(out, want, k, `${FORMAT_NAMES[aFormat]} × ${FORMAT_NAMES[bFormat]}`);
          }
        }
      });
    }

    it('sums weight gradients over several slices and chunks of rows', () => {
      addon!.setThreads(3);
      const [m, n, k] = [3300, 40, 24];
      const [dy, x] = [normal(m * n, 3), normal(m * k, 4)];
      for (const format of [F32, BF16]) {
        const dw = new Float32Array(n * k).fill(0.5);
        kernels.gemmWgrad(dy, x, F32, undefined, m, n, k, format, 0, format, 0, dw, undefined, true);
        const [left, right] = [columns(dy, m, n, format), columns(x, m, k, format)];
        const want = multiply(left, right, n, k, m);
        for (let i = 0; i < n * k; i++) want.sum[i]! += 0.5;
        expectClose(dw, want, m, FORMAT_NAMES[format]!);
      }
    });
  });

  /** x [M, W] → [W, M], rounded to the format. */
  function columns(x: Values, m: number, width: number, format: number): Values {
    const turned = Float32Array.from(x, (_, i) => x[(i % m) * width + Math.floor(i / m)]!);
    return format === F32 ? turned : Float32Array.from(encodeBf16Array(turned), decodeBf16);
  }

  /** Scales row by row, [rows, tiles] → [tiles, rows]. */
  const tileMajor = (scales: Values, rows: number): number[] =>
    Array.from(scales, (_, i) => scales[(i % rows) * (scales.length / rows) + Math.floor(i / rows)]!);

  it('gives the bits of PyTorch for tiles and blocks', () => {
    const path = new URL('../goldens/numerics/tiles.json', import.meta.url);
    const { activation, weight: block } = JSON.parse(readFileSync(path, 'utf8'));
    const floats = (bits: number[]) => new Float32Array(Uint32Array.from(bits).buffer);
    for (const level of LEVELS) {
      const kernels = addon!.forIsa(level) as Addon;
      for (const [name, mode] of [
        ['fp32', FP32_SCALE],
        ['pow2', POW2_SCALE],
      ] as const) {
        const [m, k] = activation.shape;
        const codes = new Uint8Array(m * k);
        const scales = new Float32Array(tiles(k) * m);
        kernels.quantize(floats(activation.bits), m, k, E4M3_CODE, mode, codes, scales);
        expect([...codes], `${level} ${name}`).toEqual(activation[name].codes);
        expect([...scales], `${level} ${name}`).toEqual(tileMajor(floats(activation[name].scales), m));
        const [n, depth] = block.shape;
        const packed = new Uint16Array(kernels.packedBytes(n, depth, E4M3_CODE) / 2);
        const blockScales = new Float32Array(tiles(depth) * Math.ceil(n / 16) * 16);
        kernels.packWeight(floats(block.bits), 1, n, depth, false, E4M3_CODE, mode, packed, blockScales);
        // Packed zeros have no sign.
        const values = (block[name].codes as number[]).map((code) => E4M3.decode(code) + 0);
        const got = values.map((_, i) => packedValue(packed, Math.floor(i / depth), i % depth, depth));
        expect(got, `${level} ${name}`).toEqual(values);
        const columns = Math.ceil(n / 16) * 16;
        const corner = (block: number) =>
          Math.floor(block / tiles(depth)) * 128 + (block % tiles(depth)) * columns;
        const want = floats(block[name].scales);
        expect(
          [...want.keys()].map((i) => blockScales[corner(i)]),
          `${level} ${name}`,
        ).toEqual([...want]);
      }
    }
  });

  it('gives the same bits for every number of threads, weight gradients of one group aside', () => {
    const [m, n, k, groups] = [700, 96, 160, 4];
    const offsets = Int32Array.of(0, 300, 300, 431, m);
    const [x, w, dy] = [normal(m * k, 5), normal(groups * n * k, 6), normal(m * n, 7)];
    const results = [1, 2, 5].map((count) => {
      addon!.setThreads(count);
      const a = operand(addon!, x, m, k, E4M3_CODE, FP32_SCALE);
      const packed = new Uint16Array((groups * addon!.packedBytes(n, k, E4M3_CODE)) / 2);
      const scales = new Float32Array(groups * tiles(k) * n);
      addon!.packWeight(w, groups, n, k, false, E4M3_CODE, 0, packed, scales);
      const out = new Float32Array(m * n);
      addon!.gemm(a.codes, E4M3_CODE, a.scales, m, k, packed, E4M3_CODE, scales, n, out, false, offsets);
      const dw = new Float32Array(groups * n * k);
      if (count < 5) {
        addon!.gemmWgrad(dy, a.codes, E4M3_CODE, a.scales, m, n, k, 2, 0, 2, 0, dw, offsets, false);
      }
      return { out, dw };
    });
    for (const { out } of results) expect(out).toEqual(results[0]!.out);
    expect(results[1]!.dw).toEqual(results[0]!.dw);
  });

  it('names the op, the argument and both numbers of an array that is too short', () => {
    const packed = new Uint16Array(addon!.packedBytes(16, 32, BF16) / 2);
    const out = new Float32Array(32);
    const run = (a: Uint16Array, to = out, offsets?: Int32Array) =>
      addon!.gemm(a, BF16, undefined, 2, 32, packed, BF16, undefined, 16, to, false, offsets);
    expect(() => run(new Uint16Array(63))).toThrow('gemm: a has 63 elements, needs 64');
    expect(() => run(new Uint16Array(64), new Float32Array(31))).toThrow(
      'gemm: out has 31 elements, needs 32',
    );
    expect(() => run(new Float32Array(64) as unknown as Uint16Array)).toThrow(
      'gemm: a is f32, expected bf16',
    );
    expect(() => run(new Uint16Array(64), out, Int32Array.of(0, 2, 1))).toThrow('gemm: offsets[2] is 1');
    expect(() => run(new Uint16Array(64))).not.toThrow();
    expect(() => addon!.quantize(out, 1, 32, 7, 0, packed, undefined)).toThrow('unknown format code 7');
  });
});
