import { exponentOf } from './elementary.js';
import { E8M0, NUMBER_FORMATS, type NumberFormat } from './formats.js';
import { E4M3 } from './minifloat.js';
import { packCodes, packedBytes, unpackCodes } from './packing.js';
import type { Rounding } from './rounding.js';
import { type BlockSize, blockAbsMax, forEachBlock, scaleOf } from './tiles.js';

/**
 * Matrices in a small format with one scale per block: value ≈ decode(code) · scale.
 *
 * How a block's scale follows from its largest magnitude (absmax), and how it is stored:
 * - `none`  1; nothing.
 * - `fp32`  absmax / largest value of the format; 32 bits.
 * - `pow2`  that, raised to a power of two; 8 bits, E8M0.
 * - `mx`    2^(⌊log2 absmax⌋ − ⌊log2 largest value⌋), which may saturate the largest elements; 8 bits, E8M0
 *           [OCP MX §6.3].
 * - `nvfp4` absmax / largest value, rounded to E4M3 under one FP32 scale for the whole matrix, which maps its absmax to
 *           448 · largest value; 8 bits and 32 once [NVIDIA, "Introducing NVFP4"; NVIDIA Transformer Engine, NVFP4].
 */
export type ScaleRule = 'none' | 'fp32' | 'pow2' | 'mx' | 'nvfp4';

export interface Scaling {
  /** Values that share a scale. */
  readonly block: BlockSize;
  readonly rule: ScaleRule;
}

const INFINITE = Number.POSITIVE_INFINITY;

/** The usual blocks; `tile` is 1×n along the columns, `block` n×n, with n = 128 in DeepSeek-V3 [TR §3.3.2]. */
export const BLOCKS = {
  tensor: () => ({ rows: INFINITE, cols: INFINITE }),
  row: () => ({ rows: 1, cols: INFINITE }),
  tile: (n) => ({ rows: 1, cols: n }),
  block: (n) => ({ rows: n, cols: n }),
} as const satisfies Record<string, (n: number) => BlockSize>;

/** A format with its blocks and scales. */
export interface ScaledFormat {
  readonly format: NumberFormat;
  readonly scaling: Scaling;
}

const mx = (format: NumberFormat): ScaledFormat => ({
  format,
  scaling: { block: BLOCKS.tile(32), rule: 'mx' },
});

/** Formats whose specification fixes blocks and scales. */
export const BLOCK_FORMATS = {
  mxfp8: mx(NUMBER_FORMATS.e4m3),
  'mxfp8-e5m2': mx(NUMBER_FORMATS.e5m2),
  'mxfp6-e3m2': mx(NUMBER_FORMATS.e3m2),
  'mxfp6-e2m3': mx(NUMBER_FORMATS.e2m3),
  mxfp4: mx(NUMBER_FORMATS.e2m1),
  nvfp4: { format: NUMBER_FORMATS.e2m1, scaling: { block: BLOCKS.tile(16), rule: 'nvfp4' } },
} as const satisfies Record<string, ScaledFormat>;

/** A quantised matrix [rows, cols]. */
export interface ScaledMatrix extends ScaledFormat {
  readonly rows: number;
  readonly cols: number;
  /** [rows, cols] */
  readonly codes: Uint16Array;
  /** Scale of every block, row by row, without the matrix's own. */
  readonly scales: Float32Array;
  /** 1 but for `nvfp4`. */
  readonly matrixScale: number;
}

type Values = Float32Array | Float64Array;

/**
 * values [rows, cols] → codes and scales. Blocks that hold NaN or infinity get the scale NaN.
 * @param rounding of the elements; nearest even by default
 */
export function quantizeMatrix(
  values: Values,
  cols: number,
  { format, scaling }: ScaledFormat,
  rounding?: Rounding,
): ScaledMatrix {
  const rows = values.length / cols;
  const codes = new Uint16Array(values.length);
  const scales = new Float32Array(blockCount(rows, cols, scaling.block));
  const matrixScale = matrixScaleOf(values, cols, format, scaling.rule);
  forEachBlock(rows, cols, scaling.block, (start, height, width, block) => {
    const absMax = blockAbsMax(values, start, cols, height, width);
    scales[block] = blockScale(absMax, format, scaling.rule, matrixScale);
    const scale = Math.fround(scales[block]! * matrixScale);
    // Codes stay 0 where there is nothing to divide by: NVFP4 scales may vanish, and NaN needs no code.
    if (!(scale > 0)) return;
    for (let row = 0; row < height; row++) {
      const from = start + row * cols;
      for (let i = from; i < from + width; i++) codes[i] = format.encode(values[i]! / scale, rounding);
    }
  });
  return { format, scaling, rows, cols, codes, scales, matrixScale };
}

/** The values [rows, cols], each rounded to FP32. */
export function dequantizeMatrix(
  matrix: ScaledMatrix,
  out = new Float32Array(matrix.codes.length),
): Float32Array {
  const { rows, cols, codes, format, scaling } = matrix;
  forEachBlock(rows, cols, scaling.block, (start, height, width, block) => {
    const scale = Math.fround(matrix.scales[block]! * matrix.matrixScale);
    for (let row = 0; row < height; row++) {
      const from = start + row * cols;
      for (let i = from; i < from + width; i++) out[i] = format.decode(codes[i]!) * scale;
    }
  });
  return out;
}

/** Blocks of `size` over `length` elements; an infinite one covers them all. */
export const blocksOver = (length: number, size: number): number => Math.max(1, Math.ceil(length / size));

const blockCount = (rows: number, cols: number, block: BlockSize): number =>
  blocksOver(rows, block.rows) * blocksOver(cols, block.cols);

/** The scale of the whole matrix: FP32 absmax / (448 · largest value) for `nvfp4`. */
function matrixScaleOf(values: Values, cols: number, format: NumberFormat, rule: ScaleRule): number {
  if (rule !== 'nvfp4') return 1;
  const absMax = blockAbsMax(values, 0, cols, values.length / cols, cols);
  return scaleOf(absMax, E4M3.maxFinite * format.maxFinite, 'fp32');
}

function blockScale(absMax: number, format: NumberFormat, rule: ScaleRule, matrixScale: number): number {
  switch (rule) {
    case 'none':
      return absMax < INFINITE ? 1 : Number.NaN;
    case 'fp32':
      return scaleOf(absMax, format.maxFinite, rule);
    case 'pow2':
      return E8M0.decode(E8M0.encode(scaleOf(absMax, format.maxFinite, rule)));
    case 'mx':
      return mxScale(absMax, format);
    case 'nvfp4':
      return E4M3.decode(E4M3.encode(Math.fround(absMax / format.maxFinite) / matrixScale));
  }
}

/** The exponent is clamped to what E8M0 holds; an all-zero block gets the smallest scale. */
function mxScale(absMax: number, format: NumberFormat): number {
  if (!(absMax < INFINITE)) return Number.NaN;
  if (absMax === 0) return E8M0.smallest;
  const exponent = exponentOf(Math.fround(absMax)) - exponentOf(format.maxFinite);
  return 2 ** Math.max(exponent, -127);
}

// ---- Storage --------------------------------------------------------------------------------------------------

/** The bytes of a matrix, as memory or a file holds them. */
export interface StoredMatrix {
  /** Codes without gaps (packing.ts), rows one after the other; each row starts on a byte. */
  readonly codes: Uint8Array;
  /** One FP32 (little-endian), E8M0 or E4M3 per block. */
  readonly scales: Uint8Array;
  /** Stored as FP32 where the rule has one. */
  readonly matrixScale: number;
}

export function storeMatrix(matrix: ScaledMatrix): StoredMatrix {
  const { rows, cols, format, scales, scaling } = matrix;
  const codes = new Uint8Array(rows * packedBytes(cols, format.bits));
  for (let row = 0, at = 0; row < rows; row++) {
    at = packCodes(matrix.codes, row * cols, cols, format.bits, codes, at);
  }
  return { codes, scales: storeScales(scales, scaling.rule), matrixScale: matrix.matrixScale };
}

function storeScales(scales: Float32Array, rule: ScaleRule): Uint8Array {
  if (rule === 'none') return new Uint8Array(0);
  if (rule !== 'fp32') return Uint8Array.from(scales, (scale) => scaleFormat(rule).encode(scale));
  const bytes = new Uint8Array(4 * scales.length);
  const view = new DataView(bytes.buffer);
  scales.forEach((scale, i) => {
    view.setFloat32(4 * i, scale, true);
  });
  return bytes;
}

const scaleFormat = (rule: Exclude<ScaleRule, 'none' | 'fp32'>): NumberFormat =>
  rule === 'nvfp4' ? E4M3 : E8M0;

/** The inverse of `storeMatrix`. */
export function loadMatrix(
  stored: StoredMatrix,
  rows: number,
  cols: number,
  { format, scaling }: ScaledFormat,
): ScaledMatrix {
  const codes = new Uint16Array(rows * cols);
  const rowBytes = packedBytes(cols, format.bits);
  for (let row = 0; row < rows; row++) {
    unpackCodes(stored.codes, row * rowBytes, cols, format.bits, codes, row * cols);
  }
  const scales = loadScales(stored.scales, scaling.rule, blockCount(rows, cols, scaling.block));
  return { format, scaling, rows, cols, codes, scales, matrixScale: stored.matrixScale };
}

function loadScales(bytes: Uint8Array, rule: ScaleRule, blocks: number): Float32Array {
  if (rule === 'none') return new Float32Array(blocks).fill(1);
  if (rule !== 'fp32') return Float32Array.from(bytes, (code) => scaleFormat(rule).decode(code));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

const SCALE_BITS: Record<ScaleRule, number> = { none: 0, fp32: 32, pow2: 8, mx: 8, nvfp4: 8 };

/** Bits of codes and scales of a [rows, cols] matrix. */
export function scaledBits(rows: number, cols: number, { format, scaling }: ScaledFormat): number {
  const blocks = blockCount(rows, cols, scaling.block);
  const matrixBits = scaling.rule === 'nvfp4' ? 32 : 0;
  return rows * cols * format.bits + blocks * SCALE_BITS[scaling.rule] + matrixBits;
}
