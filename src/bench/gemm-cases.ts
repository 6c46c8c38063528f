import type { Operand } from '../spec/precision.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import type { Backend } from '../tensor/backend.js';
import { allocate } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';
import {
  BF16,
  E4M3,
  emptyOperand,
  emptyPacked,
  formatName,
  type KernelCase,
  type PreparedCase,
  packed,
  quantized,
  randomTensor,
} from './cases.js';

/** Linears of one weight: M = N = K. Targets: BF16 75 %, FP8 with the quantisation of both operands 60 %. */
export function gemmCases(): KernelCase[] {
  return [1024, 2048].flatMap((n) => [
    { name: `BF16 GEMM ${n}³`, threads: 'one and all', target: 0.75, prepare: (b) => bf16Gemm(b, n) },
    {
      name: `FP8 GEMM ${n}³, quantising both operands`,
      threads: 'one and all',
      target: 0.6,
      prepare: (b) => fp8Gemm(b, n),
    },
    { name: `BF16 Wgrad ${n}³`, threads: 'all', prepare: (b) => wgrad(b, BF16, n) },
    { name: `FP8 Wgrad ${n}³, quantising both operands`, threads: 'all', prepare: (b) => wgrad(b, E4M3, n) },
  ]);
}

/** The activation [n, n] in BF16 and a weight that was packed before, as both micro-batches of a step find it. */
function bf16Gemm(backend: Backend, n: number): PreparedCase {
  const x = quantized(backend, randomTensor(backend, [n, n], 'bf16'), BF16);
  const w = packed(backend, randomTensor(backend, [1, n, n], 'f32'), BF16);
  const out = allocate(backend, [n, n], 'bf16');
  return { run: () => backend.gemm(x, w, out), work: { flops: 2 * n ** 3 } };
}

/** From a BF16 activation and an FP32 weight to a BF16 result. */
function fp8Gemm(backend: Backend, n: number): PreparedCase {
  const x = randomTensor(backend, [n, n], 'bf16');
  const w = randomTensor(backend, [1, n, n], 'f32');
  const q = emptyOperand(backend, x, E4M3);
  const p = emptyPacked(backend, [1, n, n], E4M3, false);
  const out = allocate(backend, [n, n], 'bf16');
  const run = () => {
    backend.quantize(x, q);
    backend.packWeight(w, p);
    backend.gemm(q, p, out);
  };
  return { run, work: { flops: 2 * n ** 3 } };
}

/** dW += dyᵀ·x; both operands are brought to the format inside. */
function wgrad(backend: Backend, operand: Operand, n: number): PreparedCase {
  const dy = randomTensor(backend, [n, n], 'bf16');
  const x = quantized(backend, randomTensor(backend, [n, n], 'bf16'), operand);
  const dw = randomTensor(backend, [1, n, n], 'f32');
  const operands = { gradient: operand, input: operand };
  return { run: () => backend.gemmWgrad(dy, x, dw, operands), work: { flops: 2 * n ** 3 } };
}

/** Tokens of the batch that the experts share. */
const TOKENS = 4096;

/** A grouped GEMM: rows R = T·K, group sizes uneven as a router leaves them. */
interface Grouped {
  rows: number;
  offsets: Tensor;
  experts: number;
  /** N, K of each expert's weight. */
  n: number;
  k: number;
}

/** The experts of `small`, 4096 tokens. Target: 50 %. */
export function expertCases(): KernelCase[] {
  const { hidden_size: d, moe_intermediate_size: i } = MODEL_PRESETS.small;
  const shapes = { up: grouped(2 * i, d), down: grouped(d, i) };
  return [BF16, E4M3].flatMap((operand) =>
    Object.entries(shapes).flatMap(([part, shape]) => {
      const name = (gemm: string) => `${formatName(operand)} experts ${part}, ${gemm}`;
      const common = { threads: 'all', target: 0.5 } as const;
      return [
        { ...common, name: name('Fprop'), prepare: (b: Backend) => groupedGemm(b, operand, shape, false) },
        { ...common, name: name('Dgrad'), prepare: (b: Backend) => groupedGemm(b, operand, shape, true) },
        { ...common, name: name('Wgrad'), prepare: (b: Backend) => groupedWgrad(b, operand, shape) },
      ];
    }),
  );
}

function grouped(n: number, k: number): Grouped {
  const { n_routed_experts: experts, num_experts_per_tok: topK } = MODEL_PRESETS.small;
  const rows = TOKENS * topK;
  return { rows, offsets: unevenOffsets(rows, experts), experts, n, k };
}

/** Bounds of groups whose sizes run from half to one and a half times the mean. */
function unevenOffsets(rows: number, groups: number): Tensor {
  const share = (g: number) => 0.5 * (g / groups) + 0.5 * (g / groups) ** 2;
  return Tensor.i32(Array.from({ length: groups + 1 }, (_, g) => Math.round(rows * share(g))));
}

function groupedGemm(backend: Backend, operand: Operand, s: Grouped, transposed: boolean): PreparedCase {
  const [depth, columns] = transposed ? [s.n, s.k] : [s.k, s.n];
  const x = quantized(backend, randomTensor(backend, [s.rows, depth], 'bf16'), operand);
  const w = packed(backend, randomTensor(backend, [s.experts, s.n, s.k], 'f32'), operand, transposed);
  const out = allocate(backend, [s.rows, columns], 'bf16');
  const run = () => backend.gemm(x, w, out, { offsets: s.offsets });
  return { run, work: { flops: 2 * s.rows * s.n * s.k } };
}

function groupedWgrad(backend: Backend, operand: Operand, s: Grouped): PreparedCase {
  const dy = randomTensor(backend, [s.rows, s.n], 'bf16');
  const x = quantized(backend, randomTensor(backend, [s.rows, s.k], 'bf16'), operand);
  const dw = randomTensor(backend, [s.experts, s.n, s.k], 'f32');
  const operands = { gradient: operand, input: operand };
  const run = () => backend.gemmWgrad(dy, x, dw, operands, { offsets: s.offsets });
  return { run, work: { flops: 2 * s.rows * s.n * s.k } };
}
