import type { ModelConfig, Yarn } from './model.js';

/**
 * `config.json` for a model of ours. Rotary embedding is described as the published files do it (`rope_theta`,
 * `rope_scaling`): transformers 4.5x knows no other form and 5.x turns it into its `rope_parameters`.
 */

/** `architectures` by model type. */
const ARCHITECTURES = { deepseek_v3: 'DeepseekV3ForCausalLM', deepseek_v2: 'DeepseekV2ForCausalLM' } as const;

/** Fields that transformers 5 declares as float, or 4.5x warns about when they are integers. */
const FLOAT_FIELDS = new Set([
  'attention_dropout',
  'attention_factor',
  'beta_fast',
  'beta_slow',
  'factor',
  'initializer_range',
  'mscale',
  'mscale_all_dim',
  'rms_norm_eps',
  'rope_theta',
  'routed_scaling_factor',
]);

/**
 * The fields of `config.json`. Weights are not quantised, whatever the source of the description was.
 * @param dtype type of the weights beside it, as PyTorch calls it
 */
export function huggingFaceConfig(c: ModelConfig, dtype: 'bfloat16' | 'float32'): Record<string, unknown> {
  const { yarn, quantization: _, rope_interleave: interleave, num_nextn_predict_layers: mtp, ...rest } = c;
  const { attention_kind: kind, ...same } = rest;
  const v3 = c.model_type === 'deepseek_v3';
  return {
    architectures: [ARCHITECTURES[c.model_type]],
    ...same,
    attention_bias: false,
    attention_dropout: 0,
    hidden_act: 'silu',
    moe_layer_freq: 1,
    // Without a latent no other software takes the model for one with MLA.
    ...(kind === 'mla' ? {} : { attention_kind: kind, kv_lora_rank: null }),
    // transformers' DeepSeek-V2 knows neither field.
    ...(v3 || mtp > 0 ? { num_nextn_predict_layers: mtp } : {}),
    ...(v3 || !interleave ? { rope_interleave: interleave } : {}),
    rope_scaling: yarn && ropeScaling(yarn),
    torch_dtype: dtype,
    use_cache: true,
  };
}

/** `type` is read by DeepSeek's own code and by transformers before 4.43, `rope_type` by later ones. */
function ropeScaling(yarn: Yarn): Record<string, unknown> {
  const { attention_factor: factor, truncate, mscale, mscale_all_dim: all, ...same } = yarn;
  return {
    type: 'yarn',
    rope_type: 'yarn',
    ...same,
    ...(mscale ? { mscale } : {}),
    ...(all ? { mscale_all_dim: all } : {}),
    ...(factor === undefined ? {} : { attention_factor: factor }),
    ...(truncate ? {} : { truncate }),
  };
}

/** JSON text of a configuration; whole numbers in fields of type float keep a ".0", which transformers 5 demands. */
export function configText(config: Record<string, unknown>): string {
  const marked = (key: string, value: unknown) =>
    FLOAT_FIELDS.has(key) && Number.isInteger(value) ? `<float>${value}.0` : value;
  return `${JSON.stringify(config, marked, 2).replaceAll(/"<float>([^"]*)"/g, '$1')}\n`;
}
