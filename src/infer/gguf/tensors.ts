/**
 * The tensors of llama.cpp's `deepseek2`, made from the parameters of a model. Legend: H heads, I expert width, D hidden
 * size, E experts; d_h, d_h^R, d_v the non-rotary, rotary and value head sizes; d_c the key-value latent.
 */
import { listParameters, type ParameterSpec } from '../../model/parameters.js';
import { cosSinFactor } from '../../model/rope.js';
import type { ModelConfig } from '../../spec/model.js';
import { TENSOR_TYPES, type TensorTypeName } from './format.js';
import type { GgufTensor } from './writer.js';

/** Where weights come from: a checkpoint, or random numbers. */
export interface WeightSource {
  readonly config: ModelConfig;
  /** Fills `out` with the elements of a parameter (our name and layout) from element `begin` on, as f32. */
  readRange(name: string, begin: number, out: Float32Array<ArrayBuffer>): void;
}

/** Elements that are read at a time, 64 MB of f32, unless one row or head is larger. */
const PIECE = 1 << 24;

/**
 * All tensors but those of MTP modules, which llama.cpp's deepseek2 has no use for.
 * @param type of the matrices; norms, gates and their biases stay F32, as in llama.cpp's converter
 */
export function modelTensors(source: WeightSource, type: TensorTypeName): GgufTensor[] {
  const parameters = listParameters(source.config).filter(({ mtp }) => !mtp);
  return parameters.flatMap((parameter) => new Parameter(source, parameter, type).tensors());
}

/** llama.cpp's names of what is one tensor there and here, by ours without the layer. */
const NAMES: Record<string, string> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
  'input_layernorm.weight': 'attn_norm.weight',
  'post_attention_layernorm.weight': 'ffn_norm.weight',
  'self_attn.q_proj.weight': 'attn_q.weight',
  'self_attn.q_a_proj.weight': 'attn_q_a.weight',
  'self_attn.q_a_layernorm.weight': 'attn_q_a_norm.weight',
  'self_attn.q_b_proj.weight': 'attn_q_b.weight',
  'self_attn.kv_a_proj_with_mqa.weight': 'attn_kv_a_mqa.weight',
  'self_attn.kv_a_layernorm.weight': 'attn_kv_a_norm.weight',
  'self_attn.o_proj.weight': 'attn_output.weight',
  'mlp.gate.weight': 'ffn_gate_inp.weight',
  'mlp.gate.e_score_correction_bias': 'exp_probs_b.bias',
  'mlp.down_proj.weight': 'ffn_down.weight',
  'mlp.shared_experts.down_proj.weight': 'ffn_down_shexp.weight',
  'mlp.experts.down_proj': 'ffn_down_exps.weight',
};

/** The same for gate and up projections, which are one matrix here. */
const GATED: Record<string, string> = {
  'mlp.gate_up_proj.weight': '',
  'mlp.shared_experts.gate_up_proj.weight': '_shexp',
  'mlp.experts.gate_up_proj': '_exps',
};

/**
 * Type of the matrices of absorbed attention. On CPUs with AMX, llama.cpp (v0.5.0) puts F16, Q8_0 and Q4_0 matrices into buffers
 * that cannot be multiplied with permuted queries, and aborts; these types it leaves where they are.
 */
const ABSORBED: Record<TensorTypeName, TensorTypeName> = {
  f32: 'f32',
  f16: 'f32',
  bf16: 'bf16',
  q8_0: 'bf16',
  q4_0: 'bf16',
};

/** One parameter of ours and what becomes of it. */
class Parameter {
  private readonly own: string;
  private readonly prefix: string;
  private readonly width: number;

  constructor(
    private readonly source: WeightSource,
    private readonly spec: ParameterSpec,
    private readonly type: TensorTypeName,
  ) {
    this.own = spec.name.replace(/^model\.layers\.\d+\./, '');
    this.prefix = spec.layer === undefined ? '' : `blk.${spec.layer}.`;
    this.width = spec.shape.at(-1)!;
  }

  tensors(): GgufTensor[] {
    if (this.own === 'self_attn.kv_b_proj.weight') return this.keyAndValue();
    if (this.own in GATED) return this.gateAndUp(GATED[this.own]!);
    const name = NAMES[this.own];
    if (name === undefined) throw new Error(`no GGUF name for ${this.spec.name}`);
    const rows = this.spec.shape.slice(0, -1).reduce((n, d) => n * d, 1);
    return [this.tensor(name, this.spec.shape, () => this.rotated(rows))];
  }

  /** Rows of a whole parameter, with rotary rows brought into llama.cpp's order. */
  private rotated(rows: number): Iterable<Float32Array> {
    const c = this.source.config;
    const rotary = c.qk_rope_head_dim;
    const factor = queryRotaryFactor(c);
    if (/q_(b_)?proj/.test(this.own) && (factor !== 1 || !c.rope_interleave)) {
      const head = c.qk_nope_head_dim + rotary;
      return this.mapped(rows, head, (m) => this.rotary(m, c.qk_nope_head_dim, factor));
    }
    if (this.own.includes('kv_a_proj') && !c.rope_interleave) {
      return this.mapped(rows, rows, (m) => this.rotary(m, c.kv_lora_rank, 1));
    }
    return this.rows(0, rows);
  }

  /**
   * Rows from `start` on, the rotary ones of a head: times `factor`, and where pairs lie half a head apart [x_i, x_{i+d/2}],
   * side by side [x_2i, x_2i+1].
   */
  private rotary(matrix: Float32Array, start: number, factor: number): Float32Array {
    const out = matrix.slice();
    const rotary = this.source.config.qk_rope_head_dim;
    for (let i = 0; i < rotary; i++) {
      const from = this.source.config.rope_interleave ? i : (i >> 1) + (i & 1) * (rotary / 2);
      const row = matrix.subarray((start + from) * this.width, (start + from + 1) * this.width);
      out.set(factor === 1 ? row : row.map((x) => x * factor), (start + i) * this.width);
    }
    return out;
  }

  /**
   * kv_b_proj [H·(d_h + d_v), d_c], per head [W^UK; W^UV], apart: attn_k_b [H, d_c, d_h] is transposed, because llama.cpp
   * multiplies queries with it; attn_v_b [H, d_v, d_c].
   */
  private keyAndValue(): GgufTensor[] {
    const {
      num_attention_heads: heads,
      qk_nope_head_dim: key,
      v_head_dim: value,
      kv_lora_rank: rank,
    } = this.source.config;
    const head = key + value;
    const { source, spec, width } = this;
    function* keys() {
      for (let h = 0; h < heads; h++)
        yield transpose(read(source, spec.name, h * head * width, key * width), key, width);
    }
    const values = () => this.slices(heads, head, key, value);
    return [
      { ...this.tensor('attn_k_b.weight', [heads, rank, key], keys), type: ABSORBED[this.type] },
      { ...this.tensor('attn_v_b.weight', [heads, value, rank], values), type: ABSORBED[this.type] },
    ];
  }

  /** gate_up_proj [(E,) 2I, D], apart: [(E,) I, D] each. */
  private gateAndUp(suffix: string): GgufTensor[] {
    const [half, width] = [this.spec.shape.at(-2)! / 2, this.width];
    const outer = this.spec.shape.slice(0, -2);
    const experts = outer[0] ?? 1;
    return ['gate', 'up'].map((which, i) =>
      this.tensor(`ffn_${which}${suffix}.weight`, [...outer, half, width], () =>
        this.slices(experts, 2 * half, i * half, half),
      ),
    );
  }

  private tensor(name: string, shape: readonly number[], values: () => Iterable<Float32Array>): GgufTensor {
    return { name: this.prefix + name, shape, type: this.storedType(shape), values };
  }

  /** F16 where rows are no whole blocks, as llama.cpp's converter does. */
  private storedType(shape: readonly number[]): TensorTypeName {
    if (shape.length < 2 || this.spec.part === 'gate') return 'f32';
    return shape.at(-1)! % TENSOR_TYPES[this.type].block === 0 ? this.type : 'f16';
  }

  /** `count` rows of each of `outer` groups of `stride` rows, from row `from` of the group. */
  private *slices(outer: number, stride: number, from: number, count: number): Iterable<Float32Array> {
    for (let i = 0; i < outer; i++) yield* this.rows(i * stride + from, count);
  }

  private *rows(from: number, count: number): Iterable<Float32Array> {
    const step = Math.max(1, Math.floor(PIECE / this.width));
    for (let row = 0; row < count; row += step) {
      const length = Math.min(step, count - row) * this.width;
      yield read(this.source, this.spec.name, (from + row) * this.width, length);
    }
  }

  /** All rows, `head` at a time, through `map`. */
  private *mapped(
    rows: number,
    head: number,
    map: (matrix: Float32Array) => Float32Array,
  ): Iterable<Float32Array> {
    for (let row = 0; row < rows; row += head) {
      yield map(read(this.source, this.spec.name, row * this.width, head * this.width));
    }
  }
}

/**
 * What rotary query weights are multiplied with: cos and sin carry YaRN's attention factor a, queries' and keys', which
 * llama.cpp's deepseek2 leaves out; a² on one side is the same.
 */
const queryRotaryFactor = (c: ModelConfig): number => (c.yarn ? cosSinFactor(c.yarn) ** 2 : 1);

function read(source: WeightSource, name: string, begin: number, length: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(length);
  source.readRange(name, begin, out);
  return out;
}

/** [rows, columns] → [columns, rows] */
function transpose(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(matrix.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) out[c * rows + r] = matrix[r * columns + c]!;
  return out;
}
