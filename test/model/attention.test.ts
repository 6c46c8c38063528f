import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { initialise } from '../../src/model/initialise.js';
import { loadModel, saveModel } from '../../src/model/load.js';
import { countParameters } from '../../src/model/parameters.js';
import { summariseModel } from '../../src/model/summary.js';
import { type Batch, Transformer } from '../../src/model/transformer.js';
import { forwardFlops } from '../../src/plan/flops.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { RECIPES } from '../../src/spec/precision.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import type { Parameter } from '../../src/tensor/parameter.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';

/** Values of another size than keys (d = 12 + 8, d_v = 16), which transformers' modules cannot have. */
const SIZES = {
  ...MODEL_PRESETS.tiny,
  hidden_size: 24,
  num_hidden_layers: 1,
  num_nextn_predict_layers: 0,
  vocab_size: 40,
  num_attention_heads: 6,
  qk_nope_head_dim: 12,
  qk_rope_head_dim: 8,
  v_head_dim: 16,
  initializer_range: 0.3,
};
const [DEPTH, VALUES, HEADS] = [20, 16, 6];
const KINDS = [
  { attention_kind: 'mha', num_key_value_heads: 6 },
  { attention_kind: 'gqa', num_key_value_heads: 2 },
  { attention_kind: 'mqa', num_key_value_heads: 1 },
] as const;
const configOf = (kind: object) => parseModelConfig({ ...SIZES, ...kind });

const LENGTH = 9;
const bounds = Tensor.i32([0, 4, LENGTH]);
const batch: Batch = {
  inputs: Tensor.i32([3, 7, 1, 8, 2, 8, 1, 30, 39]),
  targets: Tensor.i32([7, 1, 8, 2, -1, 1, 30, 39, 5]),
  positions: Tensor.i32([0, 1, 2, 3, 0, 1, 2, 3, 4]),
  segments: bounds,
  sequences: bounds,
  mtpInputs: [],
  mtpTargets: [],
};

/** Losses [T] of one pass; gradients are in the parameters then. */
function run(model: Transformer): Float32Array {
  const tape = new Tape(referenceBackend, new Pool(referenceBackend), true);
  const ctx = model.context(tape, RECIPES.fp32, batch, { rmsNorm: false, mlaUpProjection: false });
  const losses = model.losses(ctx, batch, { scale: 1, mtp: 0, balance: 0 }).main.data.slice() as Float32Array;
  tape.backward();
  return losses;
}

const projection = (model: Transformer, name: string): Parameter =>
  model.parameters.get(`model.layers.0.self_attn.${name}.weight`)!;

/** Head h of the rows [heads·width, D]. */
const head = (rows: Tensor, h: number, width: number): Float32Array =>
  rows.rowsView(h * width, (h + 1) * width).data as Float32Array;

// Both run the same FP32 operations on the same numbers, up to the order of a sum of gradients.
const TOLERANCE = 1e-5;

describe('grouped-query attention', () => {
  it.each([KINDS[1], KINDS[2]])(
    'is multi-head attention with key-value heads repeated: $attention_kind',
    (kind) => {
      const [grouped, full] = [kind, KINDS[0]].map(
        (which) => new Transformer(configOf(which), referenceBackend),
      ) as [Transformer, Transformer];
      initialise(grouped, 1);
      for (const [name, p] of grouped.parameters) {
        if (!/[kv]_proj/.test(name)) full.parameters.get(name)!.value.data.set(p.value.data);
      }
      const sharers = HEADS / kind.num_key_value_heads;
      const widths = { k_proj: DEPTH, v_proj: VALUES };
      for (const [name, width] of Object.entries(widths)) {
        for (let h = 0; h < HEADS; h++) {
          const source = head(projection(grouped, name).value, Math.floor(h / sharers), width);
          head(projection(full, name).value, h, width).set(source);
        }
      }
      expect(run(grouped)).toEqual(run(full));
      for (const [name, width] of Object.entries(widths)) {
        const ours = head(projection(grouped, name).gradient(), 0, width);
        const theirs = projection(full, name).gradient();
        const sum = (i: number) =>
          Array.from({ length: sharers }, (_, h) => head(theirs, h, width)[i]!).reduce((a, b) => a + b, 0);
        const largest = ours.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
        expect(largest).toBeGreaterThan(0);
        ours.forEach((x, i) => {
          expect(Math.abs(x - sum(i))).toBeLessThan(TOLERANCE * largest);
        });
      }
    },
  );
});

describe('kinds of attention', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-attention-'));
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

  it.each(KINDS)('are kept in checkpoints: $attention_kind', (kind) => {
    const model = new Transformer(configOf(kind), referenceBackend);
    initialise(model, 2);
    saveModel(folder, model, 'f32');
    const json = JSON.parse(fs.readFileSync(path.join(folder, 'config.json'), 'utf8')) as object;
    // null is what makes transformers refuse the file instead of inventing weights for MLA.
    expect(json).toMatchObject({ ...kind, kv_lora_rank: null });
    const read = loadModel(folder, referenceBackend);
    expect(read.config).toEqual(model.config);
    expect(run(read)).toEqual(run(model));
  });

  it.each([{ attention_kind: 'mla' }, ...KINDS])('count their operations: $attention_kind', (kind) => {
    const config = configOf(kind);
    const { active, byPart } = countParameters(config);
    // One multiply-add for each weight that a token meets; norms are no products.
    const weights = active - byPart.embedding.active - byPart.norms.active;
    expect(forwardFlops(config, LENGTH).matmul).toBe(2 * weights);
  });

  it('have their cache: keys and values of each key-value head in BF16', () => {
    const bytes = KINDS.map((kind) => summariseModel(configOf(kind)).cacheBytesPerToken);
    expect(bytes).toEqual([6, 2, 1].map((heads) => heads * (DEPTH + VALUES) * 2));
    expect(summariseModel(configOf({})).cacheBytesPerToken).toBe((64 + 8) * 2);
  });
});
