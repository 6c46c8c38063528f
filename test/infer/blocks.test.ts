import { describe, expect, it } from 'vitest';
import { loadAddon } from '../../src/backend/native/addon.js';
import { loadNativeBackend } from '../../src/backend/native/index.js';
import { attentionBlock, feedForwardBlock, normProject } from '../../src/infer/compose.js';
import { LatentCache } from '../../src/infer/latent-cache.js';
import { MemoryWeights } from '../../src/infer/memory-weights.js';
import { StoredRunner } from '../../src/infer/model-runner.js';
import type { StepBatch } from '../../src/infer/runner.js';
import { planStep } from '../../src/infer/step-plan.js';
import { storedModel } from '../../src/infer/stored-model.js';
import { listParameters } from '../../src/model/parameters.js';
import { Random } from '../../src/numerics/random.js';
import { type ModelConfig, parseModelConfig } from '../../src/spec/model.js';
import {
  CACHE_FORMATS,
  type CacheFormat,
  WEIGHT_FORMATS,
  type WeightFormat,
} from '../../src/spec/serving.js';
import type { Backend } from '../../src/tensor/backend.js';
import { allocate } from '../../src/tensor/parameter.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { copyRows, Sequences } from './sequences.js';

const addon = loadAddon();
const LEVELS = (['portable', 'avx2', 'avx512', 'amx'] as const).filter((isa) => {
  try {
    return addon?.forIsa(isa) !== undefined;
  } catch {
    return false;
  }
});

/** Widths that fill no vector, tile or panel, and ones that do; with and without a query latent and shared experts. */
const MODELS: Record<string, object> = {
  odd: {
    hidden_size: 72,
    intermediate_size: 52,
    moe_intermediate_size: 24,
    kv_lora_rank: 36,
    q_lora_rank: null,
    qk_nope_head_dim: 20,
    qk_rope_head_dim: 12,
    v_head_dim: 18,
    num_attention_heads: 3,
    n_shared_experts: 0,
    rope_interleave: false,
  },
  even: {
    hidden_size: 256,
    intermediate_size: 384,
    moe_intermediate_size: 128,
    kv_lora_rank: 128,
    q_lora_rank: 128,
    qk_nope_head_dim: 64,
    qk_rope_head_dim: 32,
    v_head_dim: 64,
    num_attention_heads: 8,
    n_shared_experts: 2,
  },
};

function configOf(fields: object): ModelConfig {
  return parseModelConfig({
    model_type: 'deepseek_v3',
    vocab_size: 64,
    num_hidden_layers: 2,
    first_k_dense_replace: 1,
    n_routed_experts: 12,
    num_experts_per_tok: 3,
    n_group: 4,
    topk_group: 2,
    max_position_embeddings: 2048,
    num_nextn_predict_layers: 0,
    ...fields,
  });
}

/** Random weights that keep activations at a size of about one. */
function weights(config: ModelConfig, backend: Backend, format: WeightFormat): MemoryWeights {
  const random = new Random(42);
  const values = new Map(
    listParameters(config).map(({ name, shape, kind }) => {
      const size = shape.reduce((n, d) => n * d, 1);
      const spread = kind === 'norm' ? 0.2 : shape.at(-1)! ** -0.5;
      const draw = () => (kind === 'norm' ? 1 : 0) + spread * random.normal();
      return [name, Float32Array.from({ length: size }, draw)];
    }),
  );
  return new MemoryWeights(config, backend, format, (name) => values.get(name));
}

function randomRows(backend: Backend, rows: number, cols: number): Tensor {
  const random = new Random(rows);
  const x = allocate(backend, [rows, cols], 'f32');
  for (let i = 0; i < x.size; i++) x.data[i] = random.normal();
  return x;
}

const copy = (backend: Backend, x: Tensor): Tensor => {
  const out = allocate(backend, x.shape, x.dtype);
  backend.cast(x, out);
  return out;
};

/** Rows behind 3, 600 and 40 tokens. */
function batchOf(rows: readonly number[]): StepBatch {
  const bounds = Int32Array.of(0, ...rows.map((_, s) => rows.slice(0, s + 1).reduce((a, b) => a + b, 0)));
  const count = bounds.at(-1)!;
  return {
    tokens: new Int32Array(count),
    bounds,
    lengths: [3, 600, 40].slice(0, rows.length),
    pages: [Int32Array.of(1), Int32Array.from({ length: 20 }, (_, i) => 39 - i), Int32Array.of(7, 5)].slice(
      0,
      rows.length,
    ),
    wanted: new Int32Array(0),
  };
}

describe.each(LEVELS)('blocks in one call: %s', (isa) => {
  const backend = loadNativeBackend(isa)!;
  const tape = () => new Tape(backend, new Pool(backend), false);

  describe.each(Object.keys(MODELS))('%s sizes', (name) => {
    const config = configOf(MODELS[name]!);
    const cacheOf = (format: CacheFormat) => {
      const { kv_lora_rank: latent, qk_rope_head_dim: rope } = config;
      const cache = new LatentCache(backend, { layers: 1, latent, rope, pages: 40, format }).layers[0]!;
      const slots = Tensor.i32(Int32Array.from({ length: 1280 }, (_, i) => i));
      backend.latentWrite(randomRows(backend, 1280, latent), randomRows(backend, 1280, rope), slots, cache);
      return cache;
    };

    it.each(WEIGHT_FORMATS)('attention with %s weights has the bits of its parts', (format) => {
      const { attention } = storedModel(weights(config, backend, format), false).layers[0]!;
      for (const [i, rows] of [[1], [2, 1, 3], [1, 17, 1]].entries()) {
        const plan = planStep(batchOf(rows), 2048, () => 'absorbed');
        const part = plan.parts[0]!;
        if (part.kind !== 'absorbed') throw new Error('one absorbed part');
        const cacheFormat = CACHE_FORMATS[(i + WEIGHT_FORMATS.indexOf(format)) % CACHE_FORMATS.length]!;
        const [one, other] = [cacheOf(cacheFormat), cacheOf(cacheFormat)];
        const x = randomRows(backend, plan.tokens.length, config.hidden_size);
        const y = copy(backend, x);
        backend.attentionBlock!(x, attention, one, { ...plan, rows: part.rows });
        attentionBlock(tape(), y, attention, other, plan);
        expect(x.data, `${rows} rows`).toEqual(y.data);
        expect(one.data.data, `${rows} rows, cache`).toEqual(other.data.data);
        expect(Array.from(x.data).every(Number.isFinite)).toBe(true);
      }
    });

    it.each(WEIGHT_FORMATS)('feed-forward with %s weights has the bits of its parts', (format) => {
      const { layers } = storedModel(weights(config, backend, format), false);
      for (const { feedForward } of layers) {
        for (const rows of [1, 5, 19]) {
          const x = randomRows(backend, rows, config.hidden_size);
          const y = copy(backend, x);
          backend.feedForwardBlock!(x, feedForward);
          feedForwardBlock(tape(), y, feedForward);
          expect(x.data, `${rows} rows`).toEqual(y.data);
          expect(Array.from(x.data).every(Number.isFinite)).toBe(true);
        }
      }
    });
  });

  it.each(WEIGHT_FORMATS)(
    'norms and their product with %s weights have the bits of their parts',
    (format) => {
      const config = configOf({ ...MODELS.even!, num_nextn_predict_layers: 1 });
      const { mtp, head, norm } = storedModel(weights(config, backend, format), true);
      const { embeddingNorm, hiddenNorm, projection } = mtp!;
      for (const [rows, wanted] of [
        [1, [0]],
        [3, [0, 2]],
        [19, Array.from({ length: 19 }, (_, row) => row)],
        [2, []],
      ] as const) {
        const parts = [rows, rows + 1].map((n) => randomRows(backend, n, 256).rowsView(0, rows));
        for (const [x, norms, w] of [
          [parts, [embeddingNorm, hiddenNorm], projection],
          [parts.slice(0, 1), [norm], head],
        ] as const) {
          const normed = allocate(backend, [rows, w.k], 'f32');
          const y = allocate(backend, [wanted.length, w.n], 'f32');
          const ids = Int32Array.from(wanted);
          backend.normProject!(x, norms, config.rms_norm_eps, w, Tensor.i32(ids), normed, y);
          const expected = normProject(tape(), x, norms, config.rms_norm_eps, w, ids);
          expect(normed.data, `${rows} rows`).toEqual(expected.normed.data);
          expect(y.data, `${rows} rows, ${wanted.length} wanted`).toEqual(expected.value.data);
          expect(Array.from(normed.data).every(Number.isFinite)).toBe(true);
        }
      }
    },
  );

  // Verification of drafts gives what plain decoding gives, so that speculation changes no greedy token.
  it.each(WEIGHT_FORMATS)('a token has the same logits in every batch: %s', (format) => {
    const config = configOf(MODELS.even!);
    const runner = () =>
      new StoredRunner(backend, storedModel(weights(config, backend, format), false), {
        format: 'bf16',
        pages: 80,
      });
    const prompt = Array.from({ length: 530 }, (_, i) => (i * 7) % 64);
    const alone = new Sequences(runner());
    alone.step([{ sequence: 0, tokens: prompt }]);
    const expected = [11, 12, 13].map((token) =>
      copyRows(alone.step([{ sequence: 0, tokens: [token] }]).logits, 0, 1),
    );
    const crowd = new Sequences(runner());
    crowd.step([{ sequence: 0, tokens: prompt }]);
    crowd.step([{ sequence: 1, tokens: prompt.slice(0, 50) }]);
    const first = crowd.step([
      { sequence: 1, tokens: [5] },
      { sequence: 0, tokens: [11, 9] },
    ]).logits;
    expect(copyRows(first, 1, 2)).toEqual(expected[0]);
    crowd.cut(0, 531);
    // A prompt beside it: the rows are too many for one call.
    const second = crowd.step([
      { sequence: 2, tokens: prompt.slice(0, 60) },
      { sequence: 0, tokens: [12, 13] },
    ]).logits;
    expect(copyRows(second, 60, 61)).toEqual(expected[1]);
    expect(copyRows(second, 61, 62)).toEqual(expected[2]);
  });
});
