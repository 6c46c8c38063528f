import { MODEL_PRESETS } from '../spec/presets.js';
import type { AttentionShape, Backend } from '../tensor/backend.js';
import { allocate } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';
import { type KernelCase, type PreparedCase, randomTensor } from './cases.js';

/** Tokens in all, split into segments of the length under test. */
const TOKENS = 4096;
const LENGTHS = [256, 1024, 4096];

const scaled = (s: Omit<AttentionShape, 'scale'>): AttentionShape => ({
  ...s,
  scale: (s.nope + s.rope) ** -0.5,
});

/** Head sizes of DeepSeek-V3 (on fewer heads), and those of `mini`. */
const SHAPES = {
  'V3 heads': scaled({ heads: 8, nope: 128, rope: 64, v: 128 }),
  'mini heads': scaled({
    heads: MODEL_PRESETS.mini.num_attention_heads,
    nope: MODEL_PRESETS.mini.qk_nope_head_dim,
    rope: MODEL_PRESETS.mini.qk_rope_head_dim,
    v: MODEL_PRESETS.mini.v_head_dim,
  }),
};

/** Causal attention in BF16, forward (target: 40 %) and backward. */
export function attentionCases(): KernelCase[] {
  return Object.entries(SHAPES).flatMap(([heads, shape]) =>
    LENGTHS.flatMap((length): KernelCase[] => {
      const name = `${heads} ${shape.nope + shape.rope}/${shape.v}, S ${length}`;
      return [
        {
          name: `attention forward, ${name}`,
          threads: 'all',
          target: 0.4,
          prepare: (b) => forward(b, shape, length),
        },
        { name: `attention backward, ${name}`, threads: 'all', prepare: (b) => backward(b, shape, length) },
      ];
    }),
  );
}

function tensors(backend: Backend, { heads, nope, rope, v }: AttentionShape, length: number) {
  return {
    q: randomTensor(backend, [TOKENS, heads * (nope + rope)], 'bf16'),
    kv: randomTensor(backend, [TOKENS, heads * (nope + v)], 'bf16'),
    kRope: randomTensor(backend, [TOKENS, rope], 'bf16'),
    segments: Tensor.i32(Array.from({ length: TOKENS / length + 1 }, (_, s) => s * length)),
    o: allocate(backend, [TOKENS, heads * v], 'bf16'),
    logSumExp: allocate(backend, [heads, TOKENS], 'f32'),
  };
}

/** Pairs of a query and a key that it sees, in all heads. */
const pairs = (heads: number, length: number): number => (heads * TOKENS * (length + 1)) / 2;

/** Two products: scores over nope + rope, values over v. */
function forward(backend: Backend, shape: AttentionShape, length: number): PreparedCase {
  const t = tensors(backend, shape, length);
  const run = () => backend.attention(t.q, t.kv, t.kRope, t.segments, shape, t.o, t.logSumExp);
  const perPair = 2 * (shape.nope + shape.rope + shape.v);
  return { run, work: { flops: pairs(shape.heads, length) * perPair } };
}

/** Five products: scores again, their gradient over v, and the gradients of q, k and v. */
function backward(backend: Backend, shape: AttentionShape, length: number): PreparedCase {
  const t = tensors(backend, shape, length);
  backend.attention(t.q, t.kv, t.kRope, t.segments, shape, t.o, t.logSumExp);
  const dO = randomTensor(backend, t.o.shape, 'bf16');
  const [dq, dkv, dkRope] = [t.q, t.kv, t.kRope].map((x) => allocate(backend, x.shape, 'bf16')) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const perPair = 2 * (3 * (shape.nope + shape.rope) + 2 * shape.v);
  return {
    run: () => backend.attentionBackward(dO, t, shape, dq, dkv, dkRope),
    work: { flops: pairs(shape.heads, length) * perPair },
  };
}
