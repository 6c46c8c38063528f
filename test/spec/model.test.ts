import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { configText, huggingFaceConfig } from '../../src/spec/hugging-face.js';
import { checkTiles, parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS, type ModelPreset } from '../../src/spec/presets.js';

const tiny = MODEL_PRESETS.tiny;
const yarn = { type: 'yarn', factor: 8, original_max_position_embeddings: 64 };

describe('config.json', () => {
  it.each<[string, Record<string, unknown>, RegExp]>([
    ['a misspelt field', { hiden_size: 128 }, /unknown field "hiden_size"; remove it or correct its name/],
    [
      'a misspelt field of YaRN',
      { rope_scaling: { ...yarn, beta_fats: 3 } },
      /unknown field "beta_fats" in rope_scaling/,
    ],
    [
      'another model',
      { model_type: 'llama' },
      /model_type is "llama"; supported are deepseek_v3 and deepseek_v2/,
    ],
    ['no size', { hidden_size: undefined }, /field hidden_size: /],
    ['a size that is text', { hidden_size: '128' }, /field hidden_size: .*expected number/],
    ['a fraction of a layer', { num_hidden_layers: 2.5 }, /field num_hidden_layers: /],
    ['no heads', { num_attention_heads: 0 }, /field num_attention_heads: /],
    [
      'experts that groups do not divide',
      { n_group: 3 },
      /n_routed_experts \(8\) must be a multiple of n_group \(3\)/,
    ],
    ['more groups chosen than there are', { topk_group: 5 }, /topk_group \(5\) exceeds n_group \(4\)/],
    [
      'more experts chosen than reachable',
      { num_experts_per_tok: 5 },
      /num_experts_per_tok \(5\) exceeds the 4 experts within/,
    ],
    ['groups of one expert', { n_group: 8 }, /groups of 1 expert have no two best scores/],
    ['an odd rotary part', { qk_rope_head_dim: 15 }, /qk_rope_head_dim \(15\) must be even/],
    [
      'more dense layers than layers',
      { first_k_dense_replace: 4 },
      /first_k_dense_replace \(4\) exceeds num_hidden_layers \(3\)/,
    ],
    ['an unknown kind of attention', { attention_kind: 'nsa' }, /field attention_kind: .*"mla"/],
    ['no latent', { kv_lora_rank: null }, /field kv_lora_rank is missing, which MLA needs/],
    ['MLA that is all rotary', { qk_nope_head_dim: 0 }, /qk_nope_head_dim must be positive for MLA/],
    [
      'MHA with fewer heads for keys',
      { attention_kind: 'mha', num_key_value_heads: 1 },
      /num_key_value_heads \(1\) does not go with attention_kind mha: it must equal num_attention_heads \(2\)/,
    ],
    [
      'MQA with more than one',
      { attention_kind: 'mqa', num_key_value_heads: 2 },
      /attention_kind mqa: it must be 1/,
    ],
    [
      'GQA whose heads do not divide',
      { attention_kind: 'gqa', num_attention_heads: 3, num_key_value_heads: 2 },
      /attention_kind gqa: it must divide num_attention_heads \(3\)/,
    ],
    [
      'GQA without their number',
      { attention_kind: 'gqa', num_key_value_heads: undefined },
      /field num_key_value_heads is missing, which attention_kind gqa needs/,
    ],
    ['dropout', { attention_dropout: 0.1 }, /field attention_dropout: must be 0/],
    ['biases', { attention_bias: true }, /field attention_bias: must be false/],
    ['another activation', { hidden_act: 'gelu' }, /field hidden_act: /],
    ['another rotary scaling', { rope_scaling: { type: 'linear', factor: 2 } }, /field rope_scaling\.type: /],
  ])('with %s is refused', (_what, change, message) => {
    const parse = () => parseModelConfig({ ...tiny, ...change }, 'some/config.json');
    expect(parse).toThrow(UserError);
    expect(parse).toThrow(message);
    expect(parse).toThrow(/^some\/config\.json: [^\n]*$/);
  });

  it.each([null, [], 3, 'text', {}])('that is %j is refused', (json) => {
    expect(() => parseModelConfig(json)).toThrow(/model_type is undefined/);
  });

  it('takes the defaults of its type', () => {
    const { topk_method: _1, scoring_func: _2, norm_topk_prob: _3, ...bare } = tiny;
    const v3 = parseModelConfig(bare);
    expect([v3.topk_method, v3.scoring_func, v3.norm_topk_prob]).toEqual(['noaux_tc', 'sigmoid', true]);
    const v2 = parseModelConfig({ ...bare, model_type: 'deepseek_v2' });
    expect([v2.topk_method, v2.scoring_func, v2.norm_topk_prob]).toEqual(['greedy', 'softmax', false]);
  });

  it('means the same in the form of transformers 4 and 5', () => {
    const four = parseModelConfig({ ...tiny, rope_theta: 5000, rope_scaling: yarn });
    const { type, ...rest } = yarn;
    const { rope_theta: _1, rope_scaling: _2, ...bare } = tiny;
    const five = parseModelConfig({
      ...bare,
      rope_parameters: { rope_type: type, rope_theta: 5000, ...rest },
    });
    expect(five).toEqual(four);
    expect(four.yarn).toMatchObject({ factor: 8, beta_fast: 32, beta_slow: 1 });
  });

  it('needs whole tiles for FP8', () => {
    expect(() => checkTiles(parseModelConfig(tiny), 'tiny')).not.toThrow();
    const narrow = parseModelConfig({ ...tiny, moe_intermediate_size: 96 });
    expect(() => checkTiles(narrow, 'tiny')).toThrow(/tiny: moe_intermediate_size \(96\) must be a multiple/);
  });
});

describe('the configuration that we write', () => {
  it.each(Object.keys(MODEL_PRESETS) as ModelPreset[])('describes %s again', (name) => {
    const config = parseModelConfig(MODEL_PRESETS[name], name);
    const text = configText(huggingFaceConfig(config, 'bfloat16'));
    expect(parseModelConfig(JSON.parse(text))).toEqual({ ...config, quantization: null });
  });

  it('keeps every field of YaRN', () => {
    const scaling = {
      ...yarn,
      mscale: 1,
      mscale_all_dim: 0.5,
      beta_fast: 20,
      beta_slow: 2,
      attention_factor: 1.5,
      truncate: false,
    };
    const config = parseModelConfig({ ...tiny, rope_scaling: scaling });
    const text = configText(huggingFaceConfig(config, 'float32'));
    expect(parseModelConfig(JSON.parse(text))).toEqual(config);
    expect(text).toContain('"mscale": 1.0,');
  });
});
