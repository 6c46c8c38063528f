/**
 * Published models beside DeepSeek's own, as the fields of their `config.json` that count, and the sizes that their makers
 * print: what plans, tables 1 and 2 and the tests of the model arithmetic stand on.
 */

/** A size that was published, and what it counts. */
export interface PublishedSize {
  /** All parameters. */
  total: number;
  /** Those that a token uses, where that is published. */
  active?: number;
  /** Where from. */
  source: string;
  /** What is left out of or taken into `total`; embedding and head are in, MTP modules out, unless said otherwise. */
  embeddings?: 'out';
  mtp?: 'in';
}

/** Sum over the files of a repository, as the Hub's API gives it; copies of these pages were compared in November 2026. */
const HUB = 'safetensors metadata of the Hub (huggingface.co/api/models/ID?expand=safetensors)';

export interface PublicModel {
  /** Page of its `config.json`. */
  source: string;
  published: PublishedSize;
  config: Record<string, unknown>;
}

const llama = (size: string, total: number, config: Record<string, unknown>): PublicModel => ({
  source: `https://huggingface.co/meta-llama/Llama-3.1-${size}/blob/main/config.json`,
  published: { total, source: HUB },
  config: {
    model_type: 'llama',
    attention_bias: false,
    max_position_embeddings: 131072,
    mlp_bias: false,
    num_key_value_heads: 8,
    tie_word_embeddings: false,
    vocab_size: 128256,
    ...config,
  },
});

const qwen25 = (size: string, total: number, config: Record<string, unknown>): PublicModel => ({
  source: `https://huggingface.co/Qwen/Qwen2.5-${size}/blob/main/config.json`,
  published: { total, source: HUB },
  config: {
    model_type: 'qwen2',
    max_position_embeddings: 131072,
    tie_word_embeddings: false,
    vocab_size: 152064,
    ...config,
  },
});

const mixtral = (size: string, published: PublishedSize, config: Record<string, unknown>): PublicModel => ({
  source: `https://huggingface.co/mistralai/Mixtral-${size}-v0.1/blob/main/config.json`,
  published,
  config: {
    model_type: 'mixtral',
    num_experts_per_tok: 2,
    num_key_value_heads: 8,
    num_local_experts: 8,
    tie_word_embeddings: false,
    ...config,
  },
});

const qwen3Moe = (size: string, published: PublishedSize, config: Record<string, unknown>): PublicModel => ({
  source: `https://huggingface.co/Qwen/Qwen3-${size}/blob/main/config.json`,
  published,
  config: {
    model_type: 'qwen3_moe',
    attention_bias: false,
    decoder_sparse_step: 1,
    head_dim: 128,
    max_position_embeddings: 40960,
    mlp_only_layers: [],
    num_experts: 128,
    num_experts_per_tok: 8,
    num_key_value_heads: 4,
    tie_word_embeddings: false,
    vocab_size: 151936,
    ...config,
  },
});

/** GLM-4.5 counts MTP layers but neither embedding nor head [arXiv 2508.06471 table 1]. */
const GLM = { source: 'arXiv 2508.06471, table 1', embeddings: 'out', mtp: 'in' } as const;

const glm = (name: string, published: PublishedSize, config: Record<string, unknown>): PublicModel => ({
  source: `https://huggingface.co/zai-org/${name}/blob/main/config.json`,
  published,
  config: {
    model_type: 'glm4_moe',
    attention_bias: true,
    head_dim: 128,
    max_position_embeddings: 131072,
    n_group: 1,
    n_shared_experts: 1,
    num_attention_heads: 96,
    num_experts_per_tok: 8,
    num_key_value_heads: 8,
    num_nextn_predict_layers: 1,
    tie_word_embeddings: false,
    topk_group: 1,
    vocab_size: 151552,
    ...config,
  },
});

/** What Kimi-K2 and Moonlight share, both of DeepSeek-V3's family. */
const MOONSHOT = {
  first_k_dense_replace: 1,
  kv_lora_rank: 512,
  n_group: 1,
  norm_topk_prob: true,
  num_nextn_predict_layers: 0,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rope_theta: 50000,
  scoring_func: 'sigmoid',
  tie_word_embeddings: false,
  topk_group: 1,
  topk_method: 'noaux_tc',
  v_head_dim: 128,
  vocab_size: 163840,
};

const moonlight: PublicModel = {
  source: 'https://huggingface.co/moonshotai/Moonlight-16B-A3B/blob/main/config.json',
  published: { total: 15.29e9, active: 2.24e9, embeddings: 'out', source: 'arXiv 2502.16982, table 5' },
  config: {
    ...MOONSHOT,
    model_type: 'deepseek_v3',
    hidden_size: 2048,
    intermediate_size: 11264,
    max_position_embeddings: 8192,
    moe_intermediate_size: 1408,
    n_routed_experts: 64,
    n_shared_experts: 2,
    num_attention_heads: 16,
    num_experts_per_tok: 6,
    num_hidden_layers: 27,
    num_key_value_heads: 16,
    q_lora_rank: null,
    routed_scaling_factor: 2.446,
  },
};

const kimiK2: PublicModel = {
  source: 'https://huggingface.co/moonshotai/Kimi-K2-Instruct/blob/main/config.json',
  // The report rounds to 1.04 T [arXiv 2507.20534 table 2], 1.3 % more than the files hold.
  published: {
    total: 1.026e12,
    active: 32.6e9,
    source: `${HUB}; active: arXiv 2507.20534, table 2`,
  },
  config: {
    ...MOONSHOT,
    model_type: 'kimi_k2',
    hidden_size: 7168,
    intermediate_size: 18432,
    max_position_embeddings: 131072,
    moe_intermediate_size: 2048,
    n_routed_experts: 384,
    n_shared_experts: 1,
    num_attention_heads: 64,
    num_experts_per_tok: 8,
    num_hidden_layers: 61,
    num_key_value_heads: 64,
    q_lora_rank: 1536,
    routed_scaling_factor: 2.827,
  },
};

export const PUBLIC_MODELS = {
  'llama-3.1-8b': llama('8B', 8_030_261_248, {
    hidden_size: 4096,
    intermediate_size: 14336,
    num_attention_heads: 32,
    num_hidden_layers: 32,
  }),
  'llama-3.1-70b': llama('70B', 70_553_706_496, {
    hidden_size: 8192,
    intermediate_size: 28672,
    num_attention_heads: 64,
    num_hidden_layers: 80,
  }),
  'llama-3.1-405b': llama('405B', 405_853_388_800, {
    hidden_size: 16384,
    intermediate_size: 53248,
    num_attention_heads: 128,
    num_hidden_layers: 126,
  }),
  'qwen2.5-7b': qwen25('7B', 7_615_616_512, {
    hidden_size: 3584,
    intermediate_size: 18944,
    num_attention_heads: 28,
    num_hidden_layers: 28,
    num_key_value_heads: 4,
  }),
  'qwen2.5-72b': qwen25('72B', 72_706_203_648, {
    hidden_size: 8192,
    intermediate_size: 29568,
    num_attention_heads: 64,
    num_hidden_layers: 80,
    num_key_value_heads: 8,
  }),
  'qwen3-30b-a3b': qwen3Moe(
    '30B-A3B',
    { total: 30.5e9, active: 3.3e9, source: 'model page' },
    {
      hidden_size: 2048,
      intermediate_size: 6144,
      moe_intermediate_size: 768,
      num_attention_heads: 32,
      num_hidden_layers: 48,
    },
  ),
  'qwen3-235b-a22b': qwen3Moe(
    '235B-A22B',
    { total: 235e9, active: 22e9, source: 'model page' },
    {
      hidden_size: 4096,
      intermediate_size: 12288,
      moe_intermediate_size: 1536,
      num_attention_heads: 64,
      num_hidden_layers: 94,
    },
  ),
  'mixtral-8x7b': mixtral(
    '8x7B',
    { total: 46.7e9, active: 12.9e9, source: 'mistral.ai/news/mixtral-of-experts' },
    {
      hidden_size: 4096,
      intermediate_size: 14336,
      max_position_embeddings: 32768,
      num_attention_heads: 32,
      num_hidden_layers: 32,
      vocab_size: 32000,
    },
  ),
  'mixtral-8x22b': mixtral(
    '8x22B',
    { total: 141e9, active: 39e9, source: 'mistral.ai/news/mixtral-8x22b; weights on huggingface.co: 141B' },
    {
      hidden_size: 6144,
      intermediate_size: 16384,
      max_position_embeddings: 65536,
      num_attention_heads: 48,
      num_hidden_layers: 56,
      vocab_size: 32768,
    },
  ),
  'glm-4.5': glm(
    'GLM-4.5',
    { total: 355e9, active: 32e9, ...GLM },
    {
      first_k_dense_replace: 3,
      hidden_size: 5120,
      intermediate_size: 12288,
      moe_intermediate_size: 1536,
      n_routed_experts: 160,
      num_hidden_layers: 92,
      use_qk_norm: true,
    },
  ),
  moonlight,
  'kimi-k2': kimiK2,
} as const satisfies Record<string, PublicModel>;

export type PublicModelName = keyof typeof PUBLIC_MODELS;

/** What DeepSeek prints of its own models [TR §1; V2 §1; model page of V2-Lite]. */
export const DEEPSEEK_SIZES = {
  'deepseek-v2-lite': { total: 15.7e9, active: 2.4e9, source: 'arXiv 2405.04434, appendix B' },
  'deepseek-v2': { total: 236e9, active: 21e9, source: 'arXiv 2405.04434, §1' },
  'deepseek-v3': { total: 671e9, active: 37e9, source: 'arXiv 2412.19437, §1' },
} as const satisfies Record<string, PublishedSize>;
