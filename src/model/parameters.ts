/**
 * The parameters of a model in our own layout, and what makes them up in a Hugging Face checkpoint.
 *
 * Gate and up projections are one matrix, and the experts of a layer are one tensor, so that each is one GEMM;
 * everything else is named and shaped as in Hugging Face. Legend: D hidden size, V vocabulary, H heads, I
 * intermediate size, E routed experts, d_h / d_h^R / d_v the non-rotary, rotary and value head sizes.
 */
import { isMoeLayer, type ModelConfig } from '../spec/model.js';

/** What a parameter is, for initialisation, weight decay and precision. */
export type ParameterKind = 'matrix' | 'norm' | 'embedding' | 'buffer';

/** What a parameter belongs to, for counting. */
export const PARTS = [
  'embedding',
  'attention',
  'denseMlp',
  'sharedExperts',
  'routedExperts',
  'gate',
  'norms',
  'mtpProjection',
  'head',
] as const;
export type Part = (typeof PARTS)[number];

/** Parts whose matrices DeepSeek publishes in FP8 with a scale per block; the others stay BF16 [TR §3.3.1]. */
export const FP8_PARTS: ReadonlySet<Part> = new Set([
  'attention',
  'denseMlp',
  'sharedExperts',
  'routedExperts',
]);

/** One tensor of the published layout: rows `from`..`to` of ours, flattened to [rows, last dimension]. */
export interface HuggingFacePiece {
  readonly name: string;
  readonly shape: readonly number[];
  readonly from: number;
  readonly to: number;
}

export interface ParameterSpec {
  /** Name in our layout. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly kind: ParameterKind;
  readonly part: Part;
  /** Decoder layer; MTP module k is layer num_hidden_layers + k; absent outside layers. */
  readonly layer: number | undefined;
  /** Whether it belongs to an MTP module. */
  readonly mtp: boolean;
  /** The published tensors that make it up, in the order of its rows. */
  readonly pieces: readonly HuggingFacePiece[];
}

/**
 * Input of an MTP module's `eh_proj` [D, 2D] in the published weights: columns 0..D take enorm(embedding), columns
 * D..2D take hnorm(hidden state). That is the order of DeepSeek's checkpoints as vLLM and transformers read them,
 * the reverse of the formula in the report, proj([RMSNorm(h); RMSNorm(Emb(t))]) [TR §2.2, eq. 21]. The hidden
 * state that goes into the first module is the main model's after `model.norm`.
 */
export const MTP_PROJECTION_ORDER = ['embedding', 'hidden'] as const;

/**
 * All parameters, in the order of the forward pass, MTP modules after the decoder.
 * The embedding and output head that MTP modules share are listed once [TR §2.2].
 */
export function listParameters(c: ModelConfig): ParameterSpec[] {
  const layers = Array.from({ length: c.num_hidden_layers }, (_, layer) => decoderLayer(c, layer, false));
  const modules = Array.from({ length: c.num_nextn_predict_layers }, (_, k) =>
    mtpModule(c, c.num_hidden_layers + k),
  );
  const top: Scope = { prefix: '', layer: undefined, mtp: false };
  const head = plain(top, 'lm_head.weight', [c.vocab_size, c.hidden_size], 'matrix', 'head');
  return [
    plain(top, 'model.embed_tokens.weight', [c.vocab_size, c.hidden_size], 'embedding', 'embedding'),
    ...layers.flat(),
    plain(top, 'model.norm.weight', [c.hidden_size], 'norm', 'norms'),
    ...(c.tie_word_embeddings ? [] : [head]),
    ...modules.flat(),
  ];
}

/** Decoder layer that a parameter belongs to, by its name; −1 for those outside the layers. */
export const layerOf = (name: string): number => Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? -1);

interface Scope {
  prefix: string;
  layer: number | undefined;
  mtp: boolean;
}

function decoderLayer(c: ModelConfig, layer: number, mtp: boolean): ParameterSpec[] {
  const scope = { prefix: `model.layers.${layer}.`, layer, mtp };
  return [
    norm(scope, 'input_layernorm', c.hidden_size),
    ...attention(c, scope),
    norm(scope, 'post_attention_layernorm', c.hidden_size),
    ...(isMoeLayer(c, layer) ? mixtureOfExperts(c, scope) : denseMlp(c, scope)),
  ];
}

/** Names as published in DeepSeek-V3 [README_WEIGHTS of the model]; the block always has experts. */
function mtpModule(c: ModelConfig, layer: number): ParameterSpec[] {
  const scope = { prefix: `model.layers.${layer}.`, layer, mtp: true };
  return [
    norm(scope, 'enorm', c.hidden_size),
    norm(scope, 'hnorm', c.hidden_size),
    plain(scope, 'eh_proj.weight', [c.hidden_size, 2 * c.hidden_size], 'matrix', 'mtpProjection'),
    ...decoderLayer(c, layer, true),
    norm(scope, 'shared_head.norm', c.hidden_size),
  ];
}

function attention(c: ModelConfig, scope: Scope): ParameterSpec[] {
  return c.attention_kind === 'mla' ? latentAttention(c, scope) : groupedAttention(c, scope);
}

/** MHA, GQA and MQA, named as in transformers' Llama; per head [non-rotary | rotary]. */
function groupedAttention(c: ModelConfig, scope: Scope): ParameterSpec[] {
  const { num_attention_heads: heads, num_key_value_heads: groups, hidden_size: hidden } = c;
  const depth = c.qk_nope_head_dim + c.qk_rope_head_dim;
  const matrix = (name: string, rows: number, columns: number) =>
    plain(scope, `self_attn.${name}.weight`, [rows, columns], 'matrix', 'attention');
  return [
    matrix('q_proj', heads * depth, hidden),
    matrix('k_proj', groups * depth, hidden),
    matrix('v_proj', groups * c.v_head_dim, hidden),
    matrix('o_proj', hidden, heads * c.v_head_dim),
  ];
}

/** MLA [V2 §2.1; TR §2.1.1]. */
function latentAttention(c: ModelConfig, scope: Scope): ParameterSpec[] {
  const heads = c.num_attention_heads;
  const matrix = (name: string, rows: number, columns: number) =>
    plain(scope, `self_attn.${name}.weight`, [rows, columns], 'matrix', 'attention');
  const queryRows = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim);
  const query =
    c.q_lora_rank === null
      ? [matrix('q_proj', queryRows, c.hidden_size)]
      : [
          matrix('q_a_proj', c.q_lora_rank, c.hidden_size), // W^DQ
          norm(scope, 'self_attn.q_a_layernorm', c.q_lora_rank),
          matrix('q_b_proj', queryRows, c.q_lora_rank), // per head [W^UQ | W^QR]
        ];
  return [
    ...query,
    matrix('kv_a_proj_with_mqa', c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size), // [W^DKV | W^KR]
    norm(scope, 'self_attn.kv_a_layernorm', c.kv_lora_rank),
    matrix('kv_b_proj', heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank), // per head [W^UK | W^UV]
    matrix('o_proj', c.hidden_size, heads * c.v_head_dim), // W^O
  ];
}

function denseMlp(c: ModelConfig, scope: Scope): ParameterSpec[] {
  return mlp(scope, 'mlp', c.hidden_size, c.intermediate_size, 'denseMlp');
}

/** DeepSeekMoE [TR §2.1.2]. */
function mixtureOfExperts(c: ModelConfig, scope: Scope): ParameterSpec[] {
  const gate = plain(scope, 'mlp.gate.weight', [c.n_routed_experts, c.hidden_size], 'matrix', 'gate');
  const bias = plain(scope, 'mlp.gate.e_score_correction_bias', [c.n_routed_experts], 'buffer', 'gate');
  const shared = c.moe_intermediate_size * c.n_shared_experts;
  return [
    gate,
    ...(c.topk_method === 'noaux_tc' ? [bias] : []),
    ...(shared > 0 ? mlp(scope, 'mlp.shared_experts', c.hidden_size, shared, 'sharedExperts') : []),
    ...routedExperts(c, scope),
  ];
}

/** gate_up_proj [2I, D] = [gate; up] and down_proj [D, I]. */
function mlp(scope: Scope, name: string, d: number, i: number, part: Part): ParameterSpec[] {
  const piece = (which: string, at: number) =>
    pieceAt(`${scope.prefix}${name}.${which}_proj.weight`, [i, d], at);
  return [
    spec(scope, `${name}.gate_up_proj.weight`, [2 * i, d], 'matrix', part, [
      piece('gate', 0),
      piece('up', i),
    ]),
    plain(scope, `${name}.down_proj.weight`, [d, i], 'matrix', part),
  ];
}

/** gate_up_proj [E, 2I, D], per expert [gate; up], and down_proj [E, D, I]: transformers' own fused layout. */
function routedExperts(c: ModelConfig, scope: Scope): ParameterSpec[] {
  const [e, i, d] = [c.n_routed_experts, c.moe_intermediate_size, c.hidden_size];
  const piece = (expert: number, which: string, shape: number[], at: number) =>
    pieceAt(`${scope.prefix}mlp.experts.${expert}.${which}_proj.weight`, shape, at);
  const experts = Array.from({ length: e }, (_, expert) => expert);
  const gateUp = experts.flatMap((n) => [
    piece(n, 'gate', [i, d], 2 * i * n),
    piece(n, 'up', [i, d], 2 * i * n + i),
  ]);
  const down = experts.map((n) => piece(n, 'down', [d, i], d * n));
  return [
    spec(scope, 'mlp.experts.gate_up_proj', [e, 2 * i, d], 'matrix', 'routedExperts', gateUp),
    spec(scope, 'mlp.experts.down_proj', [e, d, i], 'matrix', 'routedExperts', down),
  ];
}

const norm = (scope: Scope, name: string, size: number): ParameterSpec =>
  plain(scope, `${name}.weight`, [size], 'norm', 'norms');

/** A parameter that is one published tensor. */
function plain(scope: Scope, name: string, shape: number[], kind: ParameterKind, part: Part): ParameterSpec {
  return spec(scope, name, shape, kind, part, [pieceAt(scope.prefix + name, shape, 0)]);
}

function spec(
  { prefix, layer, mtp }: Scope,
  name: string,
  shape: number[],
  kind: ParameterKind,
  part: Part,
  pieces: HuggingFacePiece[],
): ParameterSpec {
  return { name: prefix + name, shape, kind, part, layer, mtp, pieces };
}

/** @param from first row in our parameter; vectors are one row */
const pieceAt = (name: string, shape: number[], from: number): HuggingFacePiece => ({
  name,
  shape,
  from,
  to: from + (shape.length > 1 ? shape[0]! : 1),
});

// ---- Counting -------------------------------------------------------------------------------------------------

export interface Count {
  /** All parameters. */
  total: number;
  /** Those that one token's forward pass uses: K of E routed experts, one row of the embedding's table. */
  active: number;
}

export interface ParameterCount extends Count {
  byPart: Record<Part, Count>;
  /** The MTP modules' own parameters, which `total`, `active` and `byPart` leave out. */
  mtp: Count;
}

/** Counts trained parameters (buffers are left out), MTP modules apart, as published sizes do. */
export function countParameters(c: ModelConfig): ParameterCount {
  const byPart = Object.fromEntries(PARTS.map((part) => [part, { total: 0, active: 0 }])) as Record<
    Part,
    Count
  >;
  const mtp = { total: 0, active: 0 };
  for (const parameter of listParameters(c)) {
    if (parameter.kind === 'buffer') continue;
    const target = parameter.mtp ? mtp : byPart[parameter.part];
    target.total += size(parameter);
    target.active += size(parameter) * activeShare(c, parameter.part);
  }
  // A tied head is used for every token though it is stored as the embedding.
  if (c.tie_word_embeddings) byPart.head.active = c.vocab_size * c.hidden_size;
  const sum = (field: keyof Count) => PARTS.reduce((n, part) => n + byPart[part][field], 0);
  return { total: sum('total'), active: sum('active'), byPart, mtp };
}

const size = (parameter: ParameterSpec): number => parameter.shape.reduce((n, d) => n * d, 1);

function activeShare(c: ModelConfig, part: Part): number {
  if (part === 'routedExperts') return c.num_experts_per_tok / c.n_routed_experts;
  if (part === 'embedding') return 1 / c.vocab_size;
  return 1;
}
