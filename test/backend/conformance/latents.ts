import { expect } from 'vitest';
import { referenceBackend } from '../../../src/backend/reference/index.js';
import { roundBf16 } from '../../../src/numerics/bf16.js';
import { CACHE_FORMATS, type CacheFormat } from '../../../src/spec/serving.js';
import type { Backend } from '../../../src/tensor/backend.js';
import {
  type LatentPages,
  type LatentRows,
  PAGE_TOKENS,
  pageLayout,
} from '../../../src/tensor/latent-pages.js';
import { type DType, Tensor } from '../../../src/tensor/tensor.js';
import { Data } from '../data.js';
import { blank, type Case, largest, type Rule, runOn, type Tensors, ULP } from './harness.js';

/** The latent cache: writing, reading and attention in every format. */
export function* latentOps(): Generator<Case | Rule> {
  for (const format of CACHE_FORMATS) {
    for (const dtype of ['f32', 'bf16'] as const) {
      for (const width of WIDTHS) {
        yield writeCase(format, dtype, width);
        yield readCase(format, dtype, width);
      }
      for (const shape of SHAPES) yield attentionCase(format, dtype, shape);
    }
    yield alone(format);
  }
  yield notFinite('fp8');
  yield notFinite('logfmt8');
}

interface Width {
  latent: number;
  rope: number;
}

const WIDTHS: readonly Width[] = [
  { latent: 16, rope: 8 },
  { latent: 33, rope: 6 },
  { latent: 130, rope: 32 },
  { latent: 256, rope: 64 },
];

interface Shape extends Width {
  heads: number;
  /** Per sequence: tokens before its first row, and its rows. */
  sequences: (readonly [number, number])[];
}

const SHAPES: readonly Shape[] = [
  { heads: 1, latent: 16, rope: 8, sequences: [[0, 1]] },
  {
    heads: 3,
    latent: 33,
    rope: 6,
    sequences: [
      [4, 1],
      [0, 3],
      [38, 2],
    ],
  },
  {
    heads: 4,
    latent: 64,
    rope: 32,
    sequences: [
      [70, 9],
      [1, 1],
    ],
  },
  {
    heads: 20,
    latent: 256,
    rope: 32,
    sequences: [
      [129, 1],
      [0, 0],
      [30, 3],
    ],
  },
  // More than one part of a context.
  { heads: 16, latent: 128, rope: 64, sequences: [[1100, 2]] },
];

/** The cache of these tests has this many pages. */
const PAGES = 48;

const pagesOf = (format: CacheFormat, { latent, rope }: Width, data: Tensor): LatentPages => ({
  format,
  latent,
  rope,
  data,
});

/** Pages full of bytes that are NaN in most formats: what was never written must not matter. */
const untouched = (format: CacheFormat, width: Width): Tensor =>
  blank([PAGES, pageLayout({ format, ...width }).bytes], 'u8');

/** Slots that are neighbours in no order. */
const scattered = (count: number): Tensor =>
  Tensor.i32(Int32Array.from({ length: count }, (_, i) => (i * 37) % (PAGES * PAGE_TOKENS)));

const ROWS = 40;

function writeCase(format: CacheFormat, dtype: DType, width: Width): Case {
  const data = new Data(310);
  return {
    op: 'latentWrite',
    name: `${format}, ${width.latent}+${width.rope}, ${dtype}`,
    inputs: {
      latent: data.rough([ROWS, width.latent], dtype),
      kRope: data.normal([ROWS, width.rope], dtype),
      slots: scattered(ROWS),
    },
    outputs: { data: untouched(format, width) },
    run: (on, t) => on.latentWrite(t.latent!, t.kRope!, t.slots!, pagesOf(format, width, t.data!)),
  };
}

/** Bytes of a cache into which the reference wrote normal values at `slots`. */
function written(format: CacheFormat, width: Width, slots: Tensor): Tensor {
  const data = new Data(311);
  const bytes = untouched(format, width);
  const rows = (columns: number) => data.normal([slots.size, columns], 'f32');
  referenceBackend.latentWrite(rows(width.latent), rows(width.rope), slots, pagesOf(format, width, bytes));
  return bytes;
}

function readCase(format: CacheFormat, dtype: DType, width: Width): Case {
  const slots = scattered(ROWS);
  return {
    op: 'latentRead',
    name: `${format}, ${width.latent}+${width.rope}, ${dtype}`,
    inputs: { data: written(format, width, slots), slots },
    outputs: { latent: blank([ROWS, width.latent], dtype), kRope: blank([ROWS, width.rope], dtype) },
    run: (on, t) => on.latentRead(pagesOf(format, width, t.data!), t.slots!, t.latent!, t.kRope!),
    // LogFMT is decoded with 2^x in FP32, to 1e-5 of values up to 6, rather than in FP64.
    tolerance: format === 'logfmt8' ? { latent: 6e-5 } : {},
  };
}

/** Pages of the sequences, taken from all over the cache. */
function layOut({ sequences }: Pick<Shape, 'sequences'>): { rows: LatentRows; slots: Tensor } {
  const [bounds, pageBounds, pages, slots] = [[0], [0], [] as number[], [] as number[]];
  for (const [before, rows] of sequences) {
    bounds.push(bounds.at(-1)! + rows);
    for (let j = 0; j < before + rows; j++) {
      if (j % PAGE_TOKENS === 0) pages.push((pages.length * 7 + 3) % PAGES);
      slots.push(pages.at(-1)! * PAGE_TOKENS + (j % PAGE_TOKENS));
    }
    pageBounds.push(pages.length);
  }
  const lengths = Tensor.i32(sequences.map(([before]) => before));
  const [edges, table, tableEdges] = [bounds, pages, pageBounds].map((x) => Tensor.i32(x)) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  return { rows: { bounds: edges, lengths, pages: table, pageBounds: tableEdges }, slots: Tensor.i32(slots) };
}

function attentionCase(format: CacheFormat, dtype: DType, shape: Shape): Case {
  const { heads, latent, rope, sequences } = shape;
  const { rows, slots } = layOut(shape);
  const count = sequences.reduce((n, [, own]) => n + own, 0);
  // Queries are multiplied as BF16, but in an FP32 cache: here they are BF16 values, so that their rounding is no error.
  const q = new Data(312).normal([count, heads * (latent + rope)], dtype, 3);
  if (dtype === 'f32')
    q.data.forEach((x, i) => {
      q.data[i] = roundBf16(x);
    });
  const scale = 1 / Math.sqrt(latent + rope);
  return {
    op: 'latentAttention',
    name: `${format}, ${heads} heads of ${latent}+${rope}, sequences ${sequences.join(' ')}, ${dtype}`,
    inputs: { q, data: written(format, shape, slots), ...rows },
    outputs: { o: blank([count, heads * latent], dtype) },
    run: (on, t) =>
      on.latentAttention(t.q!, pagesOf(format, shape, t.data!), rowsIn(t), { heads, scale }, t.o!),
    tolerance: { o: LARGEST * attentionError(format, latent + rope, scale * largest(q)) },
  };
}

const rowsIn = (t: Tensors): LatentRows => ({
  bounds: t.bounds!,
  lengths: t.lengths!,
  pages: t.pages!,
  pageBounds: t.pageBounds!,
});

/** Latents of these tests are at most this large. */
const LARGEST = 5;

/**
 * Weights are rounded to BF16 (2^-8 twice: they and their sum), but in an FP32 cache; exponential and sums of FP32 add ulps.
 * A value of LogFMT near the middle of two BF16 values may be rounded to either: 2^-8 of it, in one or two terms of a score.
 */
const attentionError = (format: CacheFormat, depth: number, query: number): number =>
  (format === 'fp32' ? 0 : 2 ** -8) +
  (64 + 2 * depth) * ULP +
  (format === 'logfmt8' ? 2 * 2 ** -8 * query * LARGEST : 0);

/** A row's result is the same to the bit, whatever other rows are in the call: verification of drafts relies on it. */
function alone(format: CacheFormat): Rule {
  const [latent, rope, heads] = [96, 32, 6];
  const sequences: Shape['sequences'] = [
    [509, 7],
    [40, 1],
    [1030, 3],
    [0, 5],
  ];
  return {
    op: 'latentAttention',
    name: `${format}: rows do not depend on each other`,
    verify: (backend) => {
      const all = layOut({ sequences });
      const count = sequences.reduce((n, [, own]) => n + own, 0);
      const q = new Data(313).normal([count, heads * (latent + rope)], 'bf16', 3);
      const data = written(format, { latent, rope }, all.slots);
      const run = (queries: Tensor, rows: LatentRows) => attend(backend, format, queries, data, rows, heads);
      const together = run(q, all.rows);
      let row = 0;
      sequences.forEach(([before, own], s) => {
        const [from, to] = [all.rows.pageBounds.data[s]!, all.rows.pageBounds.data[s + 1]!];
        const pages = Tensor.i32((all.rows.pages.data as Int32Array).slice(from, to));
        for (let i = 0; i < own; i++, row++) {
          const one = run(q.rowsView(row, row + 1), {
            bounds: Tensor.i32([0, 1]),
            lengths: Tensor.i32([before + i]),
            pages,
            pageBounds: Tensor.i32([0, pages.size]),
          });
          expect(one.data, `sequence ${s}, row ${i}`).toEqual(together.rowsView(row, row + 1).data);
        }
      });
    },
  };
}

function attend(
  on: Backend,
  format: CacheFormat,
  q: Tensor,
  data: Tensor,
  rows: LatentRows,
  heads: number,
): Tensor {
  const [latent, rope] = [96, 32];
  const test: Case = {
    op: 'latentAttention',
    name: '',
    inputs: { q, data, ...rows },
    outputs: { o: blank([q.rows, heads * latent], 'bf16') },
    run: (backend, t) =>
      backend.latentAttention(
        t.q!,
        pagesOf(format, { latent, rope }, t.data!),
        rowsIn(t),
        { heads, scale: 0.1 },
        t.o!,
      ),
  };
  return runOn(on, test).o!;
}

/** A tile with NaN or infinity comes back as NaN, and its neighbours as they were. */
function notFinite(format: CacheFormat): Rule {
  const width = { latent: 256, rope: 4 };
  return {
    op: 'latentRead',
    name: `${format}: a tile that is not finite`,
    verify: (backend) => {
      const latent = new Data(314).normal([3, 256], 'f32');
      latent.data[5] = Number.POSITIVE_INFINITY;
      latent.data[256 + 200] = Number.NaN;
      const [slots, kRope] = [Tensor.i32([1, 2, 40]), Tensor.zeros([3, 4], 'f32')];
      const { out } = runOn(backend, {
        op: '',
        name: '',
        inputs: { latent, kRope, slots, data: untouched(format, width) },
        outputs: { out: blank([3, 256], 'f32'), k: blank([3, 4], 'f32') },
        run: (on, t) => {
          on.latentWrite(t.latent!, t.kRope!, t.slots!, pagesOf(format, width, t.data!));
          on.latentRead(pagesOf(format, width, t.data!), t.slots!, t.out!, t.k!);
        },
      });
      const finite = Array.from(out!.data, (x) => Number.isFinite(x));
      expect(finite).toEqual(Array.from({ length: 768 }, (_, i) => !(i < 128 || (i >= 384 && i < 512))));
    },
  };
}
