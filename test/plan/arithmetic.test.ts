import { describe, expect, it } from 'vitest';
import { countParameters } from '../../src/model/parameters.js';
import { summariseModel } from '../../src/model/summary.js';
import { cacheBytesPerToken } from '../../src/plan/cache.js';
import {
  decodeFlopsByPart,
  forwardFlopsByPart,
  sumFlops,
  trainingFlopsPerToken,
} from '../../src/plan/flops.js';
import { countShape } from '../../src/plan/parameters.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { DEEPSEEK_SIZES, PUBLIC_MODELS, type PublishedSize } from '../../src/spec/public-models.js';
import { parseModelShape } from '../../src/spec/read-shape.js';
import { shapeOfConfig } from '../../src/spec/shape.js';

const PUBLISHED: [string, unknown, PublishedSize][] = [
  ...Object.entries(PUBLIC_MODELS).map(
    ([name, { config, published }]) => [name, config, published] as [string, unknown, PublishedSize],
  ),
  ...Object.entries(DEEPSEEK_SIZES).map(
    ([name, size]) =>
      [name, MODEL_PRESETS[name as keyof typeof MODEL_PRESETS], size] as [string, unknown, PublishedSize],
  ),
];

describe('parameters of published models', () => {
  it('are at least twelve', () => expect(PUBLISHED.length).toBeGreaterThanOrEqual(12));

  it.each(PUBLISHED)('%s within half a percent of what is published', (_, config, published) => {
    const { total, byPart } = countShape(parseModelShape(config));
    const own =
      total +
      (published.mtp === 'in' ? byPart.mtp.total : 0) -
      (published.embeddings === 'out' ? byPart.embedding.total + byPart.head.total : 0);
    expect(Math.abs(own / published.total - 1)).toBeLessThan(0.005);
  });

  it.each(['llama-3.1-8b', 'llama-3.1-70b', 'llama-3.1-405b', 'qwen2.5-7b', 'qwen2.5-72b'] as const)(
    '%s to the last parameter, where the exact number is published',
    (name) => {
      const { config, published } = PUBLIC_MODELS[name];
      expect(countShape(parseModelShape(config)).total).toBe(published.total);
    },
  );
});

describe.each(Object.keys(MODEL_PRESETS))('preset %s', (name) => {
  const config = parseModelConfig(MODEL_PRESETS[name as keyof typeof MODEL_PRESETS]);
  const shape = shapeOfConfig(config);

  it('has as many parameters as the engine would allocate', () => {
    const { total, active, mtp } = countParameters(config);
    const own = countShape(shape);
    expect({ total: own.total, active: own.active, mtp: own.byPart.mtp }).toEqual({ total, active, mtp });
  });

  it('keeps as many bytes per token as the engine says', () => {
    expect(cacheBytesPerToken(shape)).toBe(summariseModel(config).cacheBytesPerToken);
  });
});

describe('operations per token', () => {
  const v3 = parseModelShape(MODEL_PRESETS['deepseek-v3']);

  it('differ between causal and not by half of the products between tokens', () => {
    const gap = trainingFlopsPerToken(v3, 4096, false, 0) - trainingFlopsPerToken(v3, 4096, true, 0);
    // 61 layers · 128 heads · (192 + 128) · 2048 keys · 2 operations · 3 passes.
    expect(gap).toBe(61 * 128 * 320 * 2048 * 2 * 3);
  });

  it('are, for weights, twice the active parameters that are matrices', () => {
    const { byPart, active } = countShape(v3);
    const matrices = active - byPart.norms.active - byPart.embedding.active;
    expect(sumFlops(forwardFlopsByPart(v3, 0, 0))).toBe(2 * matrices);
  });

  it('in decoding on the latent cost (2·512 + 64) / 320 of the unabsorbed ones', () => {
    const absorbed = decodeFlopsByPart(v3, 1000).attentionCore;
    expect(absorbed / forwardFlopsByPart(v3, 1000).attentionCore).toBe((2 * 512 + 64) / 320);
  });
});

describe('descriptions that cannot be counted', () => {
  const llama = PUBLIC_MODELS['llama-3.1-8b'].config;

  it.each([
    [{ model_type: 'gpt2' }, /model_type is "gpt2"; the planner knows deepseek_v3, .*llama/],
    [{ ...llama, hidden_size: '4096' }, /config\.json: field hidden_size/],
    [
      { ...llama, num_key_value_heads: 5 },
      /num_key_value_heads \(5\) must divide num_attention_heads \(32\)/,
    ],
    [{ ...llama, num_hidden_layer: 3 }, /field "num_hidden_layer" might change the count/],
    [{ ...PUBLIC_MODELS['mixtral-8x7b'].config, num_experts_per_tok: 9 }, /exceeds the 8 experts/],
    [{ ...PUBLIC_MODELS['kimi-k2'].config, hiden_size: 3 }, /unknown field "hiden_size"/],
    [[], /model_type is undefined/],
    [null, /not a JSON object/],
  ])('%#', (config, message) => {
    expect(() => parseModelShape(config)).toThrow(message);
  });

  it('takes the text part of a composite file', () => {
    const inner = PUBLIC_MODELS['kimi-k2'].config;
    expect(parseModelShape({ model_type: 'kimi_k25', text_config: inner })).toEqual(parseModelShape(inner));
  });
});
