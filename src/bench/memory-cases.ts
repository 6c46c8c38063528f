import type { Backend } from '../tensor/backend.js';
import { allocate } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';
import {
  bytesOf,
  E4M3,
  emptyOperand,
  emptyPacked,
  type KernelCase,
  type PreparedCase,
  randomTensor,
} from './cases.js';
import type { Traffic } from './machine.js';

/** Elements of the operands: large enough that they come from memory. */
const ROWS = 16384;
const COLS = 2048;
const VOCABULARY = 8192;

/** Kernels that move more than they compute. Targets: AdamW and quantisation 75 % of memory's speed. */
export function memoryCases(): KernelCase[] {
  const all = (name: string, prepare: KernelCase['prepare'], target?: number): KernelCase => ({
    name,
    threads: 'all',
    prepare,
    ...(target === undefined ? {} : { target }),
  });
  return [
    all('AdamW, BF16 moments', adamw, 0.75),
    all('quantise BF16 → E4M3, tiles 1×128', quantize, 0.75),
    all('quantise and pack FP32 weight → E4M3, blocks 128×128', pack, 0.75),
    all('RMSNorm', rmsNorm),
    all('RMSNorm backward', rmsNormBackward),
    all('SwiGLU', swiglu),
    all('SwiGLU backward', swigluBackward),
    all('permute', permute),
    all('unpermute', unpermute),
    all(`cross-entropy and its gradient, ${VOCABULARY} words`, crossEntropy),
    all('sum of squares', sumOfSquares),
  ];
}

/** Traffic of a kernel that reads and writes each of these tensors once. */
const traffic = (
  read: readonly Tensor[],
  written: readonly Tensor[],
  updated: readonly Tensor[] = [],
): Traffic => {
  const sum = (tensors: readonly Tensor[]) => tensors.reduce((n, t) => n + bytesOf(t), 0);
  return { read: sum(read), written: sum(written), updated: sum(updated) };
};

function adamw(b: Backend): PreparedCase {
  const shape = [ROWS, COLS / 2];
  const [p, g] = [0.02, 0.001].map((scale) => randomTensor(b, shape, 'f32', scale)) as [Tensor, Tensor];
  const [m, v] = [0, 0].map(() => allocate(b, shape, 'bf16')) as [Tensor, Tensor];
  b.fill(m, 0);
  b.fill(v, 0);
  const step = {
    learningRate: 1e-3,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0.1,
    gradientScale: 1,
    biasCorrection1: 0.1,
    biasCorrection2: 0.05,
  };
  return { run: () => b.adamw(p, g, m, v, step), work: traffic([p, g, m, v], [], [p, m, v]) };
}

function quantize(b: Backend): PreparedCase {
  const x = randomTensor(b, [ROWS, COLS], 'bf16');
  const q = emptyOperand(b, x, E4M3);
  return { run: () => b.quantize(x, q), work: traffic([x], [q.codes, q.scales!]) };
}

function pack(b: Backend): PreparedCase {
  const shape = [1, ROWS / 2, COLS] as const;
  const w = randomTensor(b, shape, 'f32');
  const p = emptyPacked(b, shape, E4M3, false);
  return { run: () => b.packWeight(w, p), work: traffic([w], [p.data, p.scales!]) };
}

function rmsNorm(b: Backend): PreparedCase {
  const { x, y, weight, inverseRms } = normTensors(b);
  return { run: () => b.rmsNorm(x, weight, 1e-6, y, inverseRms), work: traffic([x], [y]) };
}

function rmsNormBackward(b: Backend): PreparedCase {
  const { x, y, weight, inverseRms } = normTensors(b);
  b.rmsNorm(x, weight, 1e-6, y, inverseRms);
  const [dx, dweight] = [allocate(b, x.shape, 'bf16'), randomTensor(b, [COLS], 'f32')];
  const run = () => b.rmsNormBackward(y, x, weight, inverseRms, dx, dweight);
  return { run, work: traffic([y, x], [dx]) };
}

const normTensors = (b: Backend) => ({
  x: randomTensor(b, [ROWS, COLS], 'bf16'),
  y: allocate(b, [ROWS, COLS], 'bf16'),
  weight: randomTensor(b, [COLS], 'f32'),
  inverseRms: allocate(b, [ROWS], 'f32'),
});

function swiglu(b: Backend): PreparedCase {
  const gu = randomTensor(b, [ROWS, COLS], 'bf16');
  const h = allocate(b, [ROWS, COLS / 2], 'bf16');
  return { run: () => b.swiglu(gu, h), work: traffic([gu], [h]) };
}

function swigluBackward(b: Backend): PreparedCase {
  const gu = randomTensor(b, [ROWS, COLS], 'bf16');
  const dh = randomTensor(b, [ROWS, COLS / 2], 'bf16');
  const dgu = allocate(b, gu.shape, 'bf16');
  return { run: () => b.swigluBackward(dh, gu, dgu), work: traffic([gu, dh], [dgu]) };
}

/** Experts chosen per token. */
const TOP_K = 4;

/** Row of each of T·K choices, spread over all rows. */
const scattered = (count: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => (i * 7919) % count);

/** Every token is read once per expert; from a cache, if it is large enough, after the first time. */
function permute(b: Backend): PreparedCase {
  const x = randomTensor(b, [ROWS / TOP_K, COLS], 'bf16');
  const source = Tensor.i32(scattered(ROWS).map((row) => Math.floor(row / TOP_K)));
  const out = allocate(b, [ROWS, COLS], 'bf16');
  return { run: () => b.permute(x, source, out), work: traffic([x], [out]) };
}

function unpermute(b: Backend): PreparedCase {
  const x = randomTensor(b, [ROWS, COLS], 'bf16');
  const slot = Tensor.i32(scattered(ROWS)).reshape([ROWS / TOP_K, TOP_K]);
  const weights = randomTensor(b, [ROWS / TOP_K, TOP_K], 'f32');
  const y = allocate(b, [ROWS / TOP_K, COLS], 'bf16');
  return { run: () => b.unpermute(x, slot, weights, y), work: traffic([x], [y]) };
}

function crossEntropy(b: Backend): PreparedCase {
  const rows = ROWS / 4;
  const logits = randomTensor(b, [rows, VOCABULARY], 'f32');
  const targets = Tensor.i32(Int32Array.from({ length: rows }, (_, r) => (r * 37) % VOCABULARY));
  const [losses, dlogits] = [allocate(b, [rows], 'f32'), allocate(b, logits.shape, 'bf16')];
  return {
    run: () => b.crossEntropy(logits, targets, losses, dlogits, 1 / rows),
    work: traffic([logits], [dlogits]),
  };
}

function sumOfSquares(b: Backend): PreparedCase {
  const x = randomTensor(b, [ROWS, COLS], 'f32');
  const out = allocate(b, [1], 'f32');
  return { run: () => b.sumOfSquares(x, out), work: traffic([x], []) };
}
