import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadAddon } from '../../src/backend/native/addon.js';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { openRunner } from '../../src/infer/open-runner.js';
import { loadModel } from '../../src/model/load.js';
import { SafetensorsReader } from '../../src/model/safetensors.js';
import { Random } from '../../src/numerics/random.js';
import { latentCacheBytesPerToken } from '../../src/plan/cache.js';
import { RECIPES } from '../../src/spec/precision.js';
import { CACHE_FORMATS, type CacheFormat } from '../../src/spec/serving.js';
import { shapeOfConfig } from '../../src/spec/shape.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { copyOf, copyRows, type Piece, relativeError, Sequences } from './sequences.js';

const ROOT = path.join(import.meta.dirname, '../goldens/transformers');
const OTHER_ATTENTION = ['v3-gqa', 'v3-mqa-partial'];
const VARIANTS = fs.readdirSync(ROOT).filter((name) => !OTHER_ATTENTION.includes(name));
// As for the training forward: FP32 sums in another order, which absorbing W^UK changes once more.
const TOLERANCE = 2e-4;
const BACKENDS = ['reference', 'native'] as const;

const open = (variant: string, backend: (typeof BACKENDS)[number], cache: CacheFormat = 'fp32') =>
  openRunner(path.join(ROOT, variant), { weights: 'fp32', cache, cacheTokens: 512, backend, threads: 2 });

/** A prompt in the expanded form, then chunks of several tokens and single ones in the absorbed form. */
const CHUNKS = [5, 1, 3, 1, 1, 1];

describe.each(BACKENDS)('the runner on the %s backend', (backend) => {
  describe.skipIf(backend === 'native' && !loadAddon())('', () => {
    it.each(VARIANTS)('gives the logits of transformers at every position: %s', (variant) => {
      const { logits, ids, sequences, length, vocabulary } = golden(variant);
      const runner = open(variant, backend);
      const feed = new Sequences(runner);
      for (let at = 0, c = 0; at < length; c++) {
        const count = Math.min(CHUNKS[c % CHUNKS.length]!, length - at);
        const tokensOf = (s: number) => [...ids.subarray(s * length + at, s * length + at + count)];
        const pieces = Array.from({ length: sequences }, (_, s) => ({ sequence: s, tokens: tokensOf(s) }));
        const result = feed.step(pieces);
        for (let s = 0; s < sequences; s++) {
          const start = (s * length + at) * vocabulary;
          const expected = logits.subarray(start, start + count * vocabulary);
          const ours = copyRows(result.logits, s * count, (s + 1) * count);
          expect(relativeError(ours, expected), `sequence ${s}, positions from ${at}`).toBeLessThan(
            TOLERANCE,
          );
        }
        at += count;
      }
      runner.close();
    });

    // More than three pages, in steps that mix prompts, chunks after a cached prefix and single tokens.
    it.each(['v3-fp32', 'v3-yarn-mscale', 'v2-groups'])(
      'gives the logits of the training forward across pages, in mixed batches: %s',
      (variant) => {
        const runner = open(variant, backend);
        const texts = [randomTokens(1, 100), randomTokens(2, 40), randomTokens(3, 70)];
        const expected = texts.map((text) => trainingLogits(variant, text).logits);
        const feed = new Sequences(runner);
        for (const counts of [
          [31, 0, 0],
          [1, 0, 33],
          [1, 7, 1],
          [40, 1, 1],
          [1, 32, 2],
          [26, 0, 33],
        ]) {
          const pieces = counts.flatMap((count, s): Piece[] => {
            const at = feed.length(s);
            return count === 0 ? [] : [{ sequence: s, tokens: texts[s]!.slice(at, at + count) }];
          });
          const starts = texts.map((_, s) => feed.length(s));
          const { logits } = feed.step(pieces);
          let row = 0;
          for (const { sequence: s, tokens } of pieces) {
            const ours = copyRows(logits, row, row + tokens.length);
            const theirs = copyRows(expected[s]!, starts[s]!, starts[s]! + tokens.length);
            expect(relativeError(ours, theirs), `sequence ${s} from ${starts[s]}`).toBeLessThan(TOLERANCE);
            row += tokens.length;
          }
        }
        expect(texts.map((_, s) => feed.length(s))).toEqual([100, 40, 70]);
        runner.close();
      },
    );

    it('continues a shared prefix and forgets rejected tokens', () => {
      const runner = open('v3-fp32', backend);
      const feed = new Sequences(runner);
      const [text, other] = [randomTokens(4, 60), randomTokens(5, 20)];
      feed.step([{ sequence: 0, tokens: text }]);
      feed.fork(0, 1, 45);
      feed.step([{ sequence: 1, tokens: other.slice(0, 10) }]);
      feed.cut(1, 50);
      const { logits } = feed.step([{ sequence: 1, tokens: other.slice(5, 20) }]);
      const expected = trainingLogits('v3-fp32', [...text.slice(0, 45), ...other]).logits;
      expect(relativeError(logits.data, copyRows(expected, 50, 65))).toBeLessThan(TOLERANCE);
      const first = feed.step([{ sequence: 0, tokens: [7] }]).logits;
      const whole = trainingLogits('v3-fp32', [...text, 7]).logits;
      expect(relativeError(first.data, copyRows(whole, 60, 61))).toBeLessThan(TOLERANCE);
      runner.close();
    });

    // Largest error of a logit, in units of the largest: rounding errors of latents (2^-9, 2^-4 and, for LogFMT-8, about
    // 2^-6 of each value), averaged over the values of a score and the tokens of a context; one dense layer, as a token that goes to another expert
    // changes much.
    it.each([
      ['bf16', 0.01],
      ['fp8', 0.1],
      ['logfmt8', 0.05],
    ] as const)('comes close with a cache in %s', (format, tolerance) => {
      const text = randomTokens(7, 80);
      const runner = open('v3-rope-halves', backend, format);
      const feed = new Sequences(runner);
      const expected = trainingLogits('v3-rope-halves', text).logits;
      for (const count of [40, 1, 1, 38]) {
        const at = feed.length(0);
        const { logits } = feed.step([{ sequence: 0, tokens: text.slice(at, at + count) }]);
        const error = relativeError(logits.data, copyRows(expected, at, at + count));
        expect(error, `from ${at}`).toBeLessThan(tolerance);
        if (at > 0) expect(error, `from ${at}`).toBeGreaterThan(0);
      }
      runner.close();
    });

    it('drafts what the MTP module computes in training', () => {
      const runner = open('v3-mtp', backend);
      expect(runner.draftDepth).toBe(1);
      const text = randomTokens(6, 71);
      const { mtp } = trainingLogits('v3-mtp', text);
      const feed = new Sequences(runner);
      for (const count of [33, 1, 2, 34]) {
        const at = feed.length(0);
        const batch = feed.batch([{ sequence: 0, tokens: text.slice(at + 1, at + 1 + count) }]);
        const { hidden } = feed.step([{ sequence: 0, tokens: text.slice(at, at + count) }]);
        // From memory of the caller's own and from the runner's alike.
        const { logits } = runner.draft(batch, count === 2 ? copyOf(hidden) : hidden);
        const error = relativeError(logits.data, copyRows(mtp!, at, at + count));
        expect(error, `from ${at}`).toBeLessThan(TOLERANCE);
      }
      runner.close();
    });
  });
});

describe('the latent cache', () => {
  it.each(CACHE_FORMATS)('takes as many bytes as estimated: %s', (format) => {
    const runner = openRunner(path.join(ROOT, 'v3-mtp'), {
      cache: format,
      cacheTokens: 70,
      backend: 'reference',
    });
    const { pages, pageTokens, bytesPerToken } = runner.cache;
    expect([pages, pageTokens]).toEqual([3, 32]);
    expect(bytesPerToken).toBe(
      latentCacheBytesPerToken(shapeOfConfig(runner.config), format, runner.draftDepth),
    );
    runner.close();
  });
});

it('serves no other attention than MLA', () => {
  for (const variant of OTHER_ATTENTION) {
    expect(() => open(variant, 'reference')).toThrow(
      /config\.json: attention_kind is (gqa|mqa); inference serves mla only/,
    );
  }
});

function golden(variant: string) {
  const reader = SafetensorsReader.open(path.join(ROOT, variant, 'golden.safetensors'));
  const [sequences, length, vocabulary] = reader.entry('logits').shape as [number, number, number];
  const [logits, ids] = [reader.readFloats('logits'), reader.readIntegers('input_ids')];
  reader.close();
  return { logits, ids, sequences, length, vocabulary };
}

/** Ids that every variant knows. */
function randomTokens(seed: number, count: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => 2 + Math.floor(random.uniform() * 60));
}

/** Logits of the training forward f32 [T, V], and of the MTP module at positions 0 .. T−2. */
function trainingLogits(variant: string, tokens: readonly number[]): { logits: Tensor; mtp?: Tensor } {
  const model = loadModel(path.join(ROOT, variant), referenceBackend);
  const bounds = Tensor.i32([0, tokens.length]);
  const layout = { positions: Tensor.i32(tokens.map((_, i) => i)), segments: bounds, sequences: bounds };
  const tape = new Tape(referenceBackend, new Pool(referenceBackend), false);
  const ctx = model.context(tape, RECIPES.fp32, layout, { rmsNorm: false, mlaUpProjection: false });
  const hidden = model.forward(ctx, Tensor.i32([...tokens]));
  const logits = model.logits(ctx, hidden);
  if (model.mtpDepth === 0) return { logits };
  const next = Tensor.i32([...tokens.slice(1), 0]);
  return { logits, mtp: model.logits(ctx, model.mtpModule(ctx, 1, hidden, next)) };
}
