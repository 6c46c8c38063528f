import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { initialise } from '../../src/model/initialise.js';
import type { Batch } from '../../src/model/transformer.js';
import { Random } from '../../src/numerics/random.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { parseTrainConfig, TRAIN_PRESETS } from '../../src/train/config.js';
import { measureLedger, predictLedger } from '../../src/train/ledger.js';
import { Trainer } from '../../src/train/trainer.js';

const SEQUENCES = 2;
const LENGTH = 24;

const model = parseModelConfig({ ...MODEL_PRESETS.tiny, vocab_size: 64, num_hidden_layers: 2 });

function trainer(overrides: object, of = model): Trainer {
  const settings = {
    ...TRAIN_PRESETS.tiny,
    batchSequences: SEQUENCES,
    sequenceLength: LENGTH,
    warmupSteps: 2,
    steps: 40,
  };
  const config = parseTrainConfig({ ...settings, ...overrides }, 'test');
  const made = new Trainer(config, of, referenceBackend);
  initialise(made.model, 1);
  return made;
}

/** Fixed random tokens, which a model can learn by heart. */
function batch(): Batch {
  const random = new Random(5);
  const tokens = Array.from({ length: SEQUENCES * LENGTH }, () => random.below(model.vocab_size));
  const bounds = Tensor.i32([0, LENGTH, 2 * LENGTH]);
  const ahead = (k: number, none: number) =>
    Tensor.i32(tokens.map((_, i) => ((i % LENGTH) + k < LENGTH ? tokens[i + k]! : none)));
  return {
    inputs: Tensor.i32(tokens),
    targets: ahead(1, -1),
    positions: Tensor.i32(tokens.map((_, i) => i % LENGTH)),
    segments: bounds,
    sequences: bounds,
    mtpInputs: [ahead(1, 0)],
    mtpTargets: [ahead(2, -1)],
  };
}

describe('trainer', () => {
  it.each(['fp32', 'bf16', 'fp8'])('learns a batch by heart in %s', (precision) => {
    const t = trainer({ precision });
    const losses = Array.from({ length: 30 }, () => t.trainStep([batch()]).loss);
    expect(losses[0]).toBeGreaterThan(4); // ln 64 = 4.16
    expect(losses[29]).toBeLessThan(2);
  });

  it('recomputes to the same bits', () => {
    const run = (recompute: object) => {
      const t = trainer({ precision: 'fp8', recompute });
      return [1, 2, 3].map(() => t.trainStep([batch()]).gradientNorm);
    };
    expect(run({ rmsNorm: true, mlaUpProjection: true })).toEqual(run({}));
  });

  it('accumulates micro-batches to the gradient of the whole batch', () => {
    const whole = trainer({ precision: 'fp32' });
    const halves = trainer({ precision: 'fp32', microBatches: 2 });
    // Two equal halves have the mean of the whole; FP32 sums differ in order only.
    const a = whole.trainStep([batch()]);
    const b = halves.trainStep([batch(), batch()]);
    expect(Math.abs(a.gradientNorm / b.gradientNorm - 1)).toBeLessThan(1e-5);
  });

  it('gives up a step that is not finite, names the parameter and changes nothing', () => {
    const t = trainer({ precision: 'fp32' });
    const name = 'model.layers.1.mlp.experts.down_proj';
    const p = t.model.parameters.get(name)!;
    p.value.data[0] = Number.NaN;
    p.valueChanged();
    const before = t.model.parameters.get('lm_head.weight')!.value.data.slice();
    const result = t.trainStep([batch()]);
    expect(result.nonFinite).toMatch(/loss is NaN, values are not finite from layer 1 on/);
    expect(t.step).toBe(0);
    expect(t.model.parameters.get('lm_head.weight')!.value.data).toEqual(before);
  });

  it.each(['bf16', 'fp8'])('predicts its own memory exactly in %s', (precision) => {
    const t = trainer({ precision });
    const predicted = predictLedger(t.config, model, referenceBackend);
    t.trainStep([batch()]);
    expect(measureLedger(t)).toEqual(predicted);
  });

  it('predicts its memory for grouped-query attention too', () => {
    const grouped = {
      ...model,
      attention_kind: 'gqa',
      num_key_value_heads: 1,
      kv_lora_rank: 0,
      q_lora_rank: null,
    } as const;
    const t = trainer({ precision: 'bf16' }, grouped);
    t.trainStep([batch()]);
    expect(measureLedger(t)).toEqual(predictLedger(t.config, grouped, referenceBackend));
  });

  it('moves the router bias towards underloaded experts', () => {
    const t = trainer({ precision: 'fp32' });
    t.trainStep([batch()]);
    const { bias, seen } = t.model.routers.get(1)!;
    const { load } = seen[0]!;
    const mean = (load.data as Int32Array).reduce((a, b) => a + b, 0) / load.size;
    const expected = Array.from(load.data, (n) => 0.001 * Math.sign(mean - n));
    expect(Array.from(bias.data)).toEqual(expected.map(Math.fround));
  });
});
