/**
 * Models by name, as the content of a Hugging Face `config.json`: three that train on the machine at hand, and
 * DeepSeek's published ones.
 */

/** What the small models share with DeepSeek-V3 [TR §4.2], scaled down. */
const V3_STYLE = {
  architectures: ['DeepseekV3ForCausalLM'],
  model_type: 'deepseek_v3',
  attention_bias: false,
  bos_token_id: 0,
  eos_token_id: 1,
  first_k_dense_replace: 1,
  hidden_act: 'silu',
  // DeepSeek-V3 takes 0.006 [TR §4.2], which at hidden 7168 gives a row of D weights the norm 0.006·√7168 = 0.51. At
  // hidden 128..512 that would be 0.07..0.14: signals die out over the layers. 0.02 (0.23..0.45) keeps them alive.
  initializer_range: 0.02,
  moe_layer_freq: 1,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_nextn_predict_layers: 1,
  rms_norm_eps: 1e-6,
  rope_interleave: true,
  rope_scaling: null,
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  tie_word_embeddings: false,
  topk_method: 'noaux_tc',
  use_cache: true,
};

/** For tests: seconds. Every width of an FP8 GEMM's contraction that must be a multiple of 128 is one. */
const tiny = {
  ...V3_STYLE,
  hidden_size: 128,
  intermediate_size: 256,
  kv_lora_rank: 64,
  max_position_embeddings: 1024,
  moe_intermediate_size: 128,
  n_group: 4,
  n_routed_experts: 8,
  num_attention_heads: 2,
  num_experts_per_tok: 2,
  num_hidden_layers: 3,
  num_key_value_heads: 2,
  q_lora_rank: 64,
  qk_nope_head_dim: 32,
  qk_rope_head_dim: 16,
  topk_group: 2,
  v_head_dim: 32,
  vocab_size: 512,
};

/** The demo: minutes on two cores. */
const mini = {
  ...V3_STYLE,
  hidden_size: 256,
  intermediate_size: 768,
  kv_lora_rank: 128,
  max_position_embeddings: 1024,
  moe_intermediate_size: 128,
  n_group: 4,
  n_routed_experts: 32,
  num_attention_heads: 4,
  num_experts_per_tok: 4,
  num_hidden_layers: 6,
  num_key_value_heads: 4,
  q_lora_rank: 128,
  qk_nope_head_dim: 64,
  qk_rope_head_dim: 32,
  topk_group: 2,
  v_head_dim: 64,
  vocab_size: 4096,
};

/** An hour on two cores. */
const small = {
  ...V3_STYLE,
  hidden_size: 512,
  intermediate_size: 1536,
  kv_lora_rank: 256,
  max_position_embeddings: 2048,
  moe_intermediate_size: 256,
  n_group: 8,
  n_routed_experts: 32,
  num_attention_heads: 8,
  num_experts_per_tok: 4,
  num_hidden_layers: 9,
  num_key_value_heads: 8,
  q_lora_rank: 256,
  qk_nope_head_dim: 64,
  qk_rope_head_dim: 32,
  topk_group: 4,
  v_head_dim: 64,
  vocab_size: 8192,
};

/** For measuring inference: 1.24 B parameters of which a token uses 205 M; as V3 in all but its sizes. */
const bench1b = {
  ...V3_STYLE,
  hidden_size: 1024,
  intermediate_size: 4096,
  kv_lora_rank: 256,
  max_position_embeddings: 8192,
  moe_intermediate_size: 512,
  n_group: 8,
  n_routed_experts: 64,
  num_attention_heads: 16,
  num_experts_per_tok: 6,
  num_hidden_layers: 12,
  num_key_value_heads: 16,
  num_nextn_predict_layers: 0,
  q_lora_rank: 512,
  qk_nope_head_dim: 64,
  qk_rope_head_dim: 32,
  topk_group: 4,
  v_head_dim: 64,
  vocab_size: 32000,
};

/** √t = 0.0707·ln s + 1 [V2 §3.1.4], as DeepSeek writes it in config.json. */
// biome-ignore lint/suspicious/noApproximativeNumericConstant: their three digits, not √½
const V2_MSCALE = 0.707;

/** https://huggingface.co/deepseek-ai/DeepSeek-V2-Lite/blob/main/config.json */
const deepseekV2Lite = {
  architectures: ['DeepseekV2ForCausalLM'],
  attention_bias: false,
  attention_dropout: 0,
  auto_map: {
    AutoConfig: 'configuration_deepseek.DeepseekV2Config',
    AutoModel: 'modeling_deepseek.DeepseekV2Model',
    AutoModelForCausalLM: 'modeling_deepseek.DeepseekV2ForCausalLM',
  },
  aux_loss_alpha: 0.001,
  bos_token_id: 100000,
  eos_token_id: 100001,
  first_k_dense_replace: 1,
  hidden_act: 'silu',
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 10944,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  model_type: 'deepseek_v2',
  moe_intermediate_size: 1408,
  moe_layer_freq: 1,
  n_group: 1,
  n_routed_experts: 64,
  n_shared_experts: 2,
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts_per_tok: 6,
  num_hidden_layers: 27,
  num_key_value_heads: 16,
  pretraining_tp: 1,
  q_lora_rank: null,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rms_norm_eps: 1e-6,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 40,
    mscale: V2_MSCALE,
    mscale_all_dim: V2_MSCALE,
    original_max_position_embeddings: 4096,
    type: 'yarn',
  },
  rope_theta: 10000,
  routed_scaling_factor: 1,
  scoring_func: 'softmax',
  seq_aux: true,
  tie_word_embeddings: false,
  topk_group: 1,
  topk_method: 'greedy',
  torch_dtype: 'bfloat16',
  transformers_version: '4.33.1',
  use_cache: true,
  v_head_dim: 128,
  vocab_size: 102400,
};

/** https://huggingface.co/deepseek-ai/DeepSeek-V2/blob/main/config.json */
const deepseekV2 = {
  ...deepseekV2Lite,
  hidden_size: 5120,
  intermediate_size: 12288,
  ep_size: 1,
  moe_intermediate_size: 1536,
  n_group: 8,
  n_routed_experts: 160,
  num_attention_heads: 128,
  num_hidden_layers: 60,
  num_key_value_heads: 128,
  q_lora_rank: 1536,
  routed_scaling_factor: 16,
  topk_group: 3,
  topk_method: 'group_limited_greedy',
  transformers_version: '4.39.3',
};

/** https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json */
const deepseekV3 = {
  architectures: ['DeepseekV3ForCausalLM'],
  attention_bias: false,
  attention_dropout: 0,
  auto_map: {
    AutoConfig: 'configuration_deepseek.DeepseekV3Config',
    AutoModel: 'modeling_deepseek.DeepseekV3Model',
    AutoModelForCausalLM: 'modeling_deepseek.DeepseekV3ForCausalLM',
  },
  bos_token_id: 0,
  eos_token_id: 1,
  ep_size: 1,
  first_k_dense_replace: 3,
  hidden_act: 'silu',
  hidden_size: 7168,
  initializer_range: 0.02,
  intermediate_size: 18432,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  model_type: 'deepseek_v3',
  moe_intermediate_size: 2048,
  moe_layer_freq: 1,
  n_group: 8,
  n_routed_experts: 256,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  num_nextn_predict_layers: 1,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  quantization_config: {
    activation_scheme: 'dynamic',
    fmt: 'e4m3',
    quant_method: 'fp8',
    weight_block_size: [128, 128],
  },
  rms_norm_eps: 1e-6,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 40,
    mscale: 1,
    mscale_all_dim: 1,
    original_max_position_embeddings: 4096,
    type: 'yarn',
  },
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  tie_word_embeddings: false,
  topk_group: 4,
  topk_method: 'noaux_tc',
  torch_dtype: 'bfloat16',
  transformers_version: '4.33.1',
  use_cache: true,
  v_head_dim: 128,
  vocab_size: 129280,
};

/** Content of `config.json` by name. */
export const MODEL_PRESETS = {
  tiny,
  mini,
  small,
  'bench-1b': bench1b,
  'deepseek-v2-lite': deepseekV2Lite,
  'deepseek-v2': deepseekV2,
  'deepseek-v3': deepseekV3,
} as const;

export type ModelPreset = keyof typeof MODEL_PRESETS;

/** Names of the presets that are small enough to be trained here. */
export const TRAINABLE_PRESETS = ['tiny', 'mini', 'small'] as const satisfies readonly ModelPreset[];

/** Names of those whose inference is measured, with random weights. */
export const INFER_MODELS = ['bench-1b', 'deepseek-v2-lite'] as const satisfies readonly ModelPreset[];
export type InferModel = (typeof INFER_MODELS)[number];
