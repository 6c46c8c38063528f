import type { Machine } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { exchangeSeconds, type WireFormats } from './exchange.js';
import {
  attentionSeconds,
  BYTES,
  type ComputeFormat,
  elementwiseSeconds,
  type Gemm,
  gemmSeconds,
  ringSeconds,
  tensorParallelSeconds,
} from './kernels.js';

/**
 * Time of one layer in training on one device, for one micro-batch. Legend: D hidden size, H heads, T tokens, K experts a token
 * goes to, w width of an expert.
 */
export interface LayerInput {
  shape: ModelShape;
  machine: Machine;
  /** Tokens of a micro-batch. */
  tokens: number;
  /** Tokens of one sequence. */
  length: number;
  format: ComputeFormat;
  tensor: number;
  /** Devices that share a sequence; `tokens` are those of one of them. */
  context: number;
  /** Devices that the experts are spread over. */
  expertDevices: number;
  wire: WireFormats;
  /** Load of the busiest device over the mean. */
  imbalance: number;
  recompute: Recompute;
  /** Units that compute. */
  units: number;
}

/**
 * `selective`: norms, SwiGLU and, under MLA, the up-projections are done again in the backward pass [TR §3.2.3]; `full`: the
 * whole forward pass.
 */
export type Recompute = 'none' | 'selective' | 'full';

/** Seconds of a pass by what binds it. */
export interface PassParts {
  gemm: number;
  attention: number;
  /** Norms, casts, permutations and the like, and sums over tensor ranks. */
  memory: number;
  /** Dispatch and combine. */
  exchange: number;
}

export interface LayerTimes {
  forward: PassParts;
  /** Backward for the inputs, recomputation included. */
  inputs: PassParts;
  /** Backward for the weights. */
  weights: PassParts;
}

export const computeSeconds = ({ gemm, attention, memory }: PassParts): number => gemm + attention + memory;
export const passSeconds = (parts: PassParts): number => computeSeconds(parts) + parts.exchange;

export function addParts(a: PassParts, b: PassParts, times = 1): PassParts {
  return {
    gemm: a.gemm + times * b.gemm,
    attention: a.attention + times * b.attention,
    memory: a.memory + times * b.memory,
    exchange: a.exchange + times * b.exchange,
  };
}

export const NO_PARTS: PassParts = { gemm: 0, attention: 0, memory: 0, exchange: 0 };

/** @param moe whether the layer has experts */
export function layerTimes(input: LayerInput, moe: boolean): LayerTimes {
  const { shape, machine: m, tokens, tensor, units, format } = input;
  const gemms = [...attentionGemms(input), ...(moe ? expertGemms(input) : denseGemms(input))];
  const gate: Gemm | undefined =
    moe && shape.experts
      ? { rows: tokens / tensor, n: shape.experts.routed, k: shape.hiddenSize }
      : undefined;
  const sum = (seconds: (gemm: Gemm, format: ComputeFormat) => number) =>
    gemms.reduce((n, gemm) => n + seconds(gemm, format), 0) +
    (gate ? seconds(gate, format === 'fp32' ? 'fp32' : 'bf16') : 0);
  const forwardGemm = sum((gemm, f) => gemmSeconds(m, gemm, f, 'forward', units));
  const inputGemm = sum((gemm, f) => gemmSeconds(m, { ...gemm, n: gemm.k, k: gemm.n }, f, 'forward', units));
  const weightGemm = sum((gemm, f) => gemmSeconds(m, weightGradient(gemm), f, 'weightGradient', units));
  const flops = attentionFlops(input);
  const latent = shape.attention.kind === 'mla';
  const ring = contextSeconds(input);
  const core = Math.max(ring, attentionSeconds(m, flops, input.length, 'forward', units, latent));
  const exchange = moe ? exchangeOf(input) : 0;
  const bytes = layerBytes(input, moe);
  const act = format === 'fp32' ? 4 : 2;
  const sums = 2 * tensorParallelSeconds(m, tokens * shape.hiddenSize * act, tensor);
  const forward = {
    gemm: forwardGemm,
    attention: core,
    memory: elementwiseSeconds(m, bytes.forward) + sums,
    exchange,
  };
  const again = recomputed(input, forward);
  const inputs = addParts(again, {
    gemm: inputGemm,
    // Keys and values go round once more, and their gradients with them.
    attention: Math.max(2 * ring, attentionSeconds(m, flops, input.length, 'backward', units, latent)),
    memory: elementwiseSeconds(m, bytes.inputs) + sums,
    exchange,
  });
  const weights = {
    gemm: weightGemm,
    attention: 0,
    memory: elementwiseSeconds(m, bytes.weights),
    exchange: 0,
  };
  return { forward, inputs, weights };
}

/** dW [n, k] = dYᵀ [n, rows] · X [rows, k]: the tokens are the contraction. */
const weightGradient = ({ rows, n, k, groups = 1 }: Gemm): Gemm => ({ rows: n, n: k, k: rows, groups });

/** Products between tokens of a micro-batch on one device, forward, causal. */
function attentionFlops({ shape: { attention: a }, tokens, length, tensor }: LayerInput): number {
  return (2 * (a.heads / tensor) * (a.keyDepth + a.valueDepth) * tokens * length) / 2;
}

/** Keys and values of all heads, in BF16 or FP32, through the ring of a sequence's devices. */
function contextSeconds({
  shape: { attention: a },
  machine,
  tokens,
  tensor,
  context,
  format,
}: LayerInput): number {
  if (context === 1) return 0;
  const heads = Math.max(1, (a.kind === 'mla' ? a.heads : a.keyValueHeads) / tensor);
  const bytes = tokens * heads * (a.keyDepth + a.valueDepth) * (format === 'fp32' ? 4 : 2);
  return ringSeconds(machine, bytes, context, machine.node.devices / tensor);
}

function attentionGemms({ shape, tokens: rows, tensor }: LayerInput): Gemm[] {
  const { attention: a, hiddenSize: D } = shape;
  const queries = (a.heads * a.keyDepth) / tensor;
  const output: Gemm = { rows, n: D, k: (a.heads * a.valueDepth) / tensor };
  if (a.kind !== 'mla') {
    const groups = Math.max(1, a.keyValueHeads / tensor);
    return [{ rows, n: queries + groups * (a.keyDepth + a.valueDepth), k: D }, output];
  }
  const down = a.latent + a.ropeDepth;
  return [
    { rows, n: (a.queryLatent ?? queries) + down, k: D },
    ...(a.queryLatent === null ? [] : [{ rows, n: queries, k: a.queryLatent }]),
    keyValueUp(shape, rows, tensor),
    output,
  ];
}

const keyValueUp = ({ attention: a }: ModelShape, rows: number, tensor: number): Gemm => ({
  rows,
  n: (a.heads * (a.keyDepth - a.ropeDepth + a.valueDepth)) / tensor,
  k: a.latent,
});

const denseGemms = ({ shape: { hiddenSize: D, denseWidth }, tokens: rows, tensor }: LayerInput): Gemm[] =>
  mlp(rows, D, denseWidth / tensor);

/** Experts are not cut by tensor parallelism: they are spread, and its ranks bring a part of the tokens each. */
function expertGemms({ shape, tokens, tensor, expertDevices, imbalance }: LayerInput): Gemm[] {
  const { hiddenSize: D, experts } = shape;
  if (!experts) return [];
  const own = tokens / tensor;
  const groups = Math.max(1, experts.routed / expertDevices);
  const rows = (own * experts.perToken * imbalance) / groups;
  const routed = mlp(rows, D, experts.width).map((gemm) => ({ ...gemm, groups }));
  return experts.shared > 0 ? [...routed, ...mlp(own, D, experts.width * experts.shared)] : routed;
}

const mlp = (rows: number, D: number, width: number): Gemm[] => [
  { rows, n: 2 * width, k: D },
  { rows, n: D, k: width },
];

function exchangeOf({ shape, machine, tokens, tensor, expertDevices, wire, imbalance }: LayerInput): number {
  if (!shape.experts) return 0;
  const own = (tokens / tensor) * imbalance;
  const { dispatch, combine } = exchangeSeconds(
    machine,
    shape.experts,
    shape.hiddenSize,
    own,
    expertDevices,
    wire,
  );
  return dispatch + combine;
}

/** What the backward pass does of the forward pass once more. Attention keeps its output and statistics. */
function recomputed(input: LayerInput, forward: PassParts): PassParts {
  const { shape, machine, tokens, tensor, units, format, recompute } = input;
  if (recompute === 'full') return { ...forward };
  if (recompute === 'none' || shape.attention.kind !== 'mla') return NO_PARTS;
  const { attention: a } = shape;
  const up = [
    ...(a.queryLatent === null
      ? []
      : [{ rows: tokens, n: (a.heads * a.keyDepth) / tensor, k: a.queryLatent }]),
    keyValueUp(shape, tokens, tensor),
  ];
  const gemm = up.reduce((n, one) => n + gemmSeconds(machine, one, format, 'forward', units), 0);
  return {
    ...NO_PARTS,
    gemm,
    memory: elementwiseSeconds(machine, tokens * ropeBytes(shape, tensor, input.format)),
  };
}

/** Reading and writing of queries and keys around the rotary embedding, per token. */
function ropeBytes({ attention: a }: ModelShape, tensor: number, format: ComputeFormat): number {
  const act = format === 'fp32' ? 4 : 2;
  if (a.kind !== 'mla') return (2 * act * (a.heads + a.keyValueHeads) * a.keyDepth) / tensor;
  // Queries are read and written; keys are put together from the up-projection and the shared rotary part.
  return (act * a.heads * (2 * a.keyDepth + a.keyDepth + a.keyDepth - a.ropeDepth)) / tensor;
}

/** Bytes a value of what lies between the GEMMs, and of casting it into a GEMM's operand. */
interface Widths {
  act: number;
  operand: number;
  /**
   * Read in BF16 and written in FP8, by a kernel of its own [TR §3.5.2]; 0 where operands are not cast. The transposed copy for
   * weight gradients is read and written once more, since its scales lie along the other axis.
   */
  cast: number;
  /** From FP8 to FP8 with scales along the other axis [TR §3.5.2]. */
  turn: number;
}

const widthsOf = (format: ComputeFormat): Widths => {
  const act = format === 'fp32' ? 4 : 2;
  if (format !== 'fp8') return { act, operand: act, cast: 0, turn: 0 };
  return { act, operand: BYTES.fp8, cast: act + BYTES.fp8, turn: 2 * BYTES.fp8 };
};

/** Bytes that operations between the GEMMs move, counted operand by operand. */
function layerBytes(input: LayerInput, moe: boolean): Record<keyof LayerTimes, number> {
  const { shape, tokens, tensor, format } = input;
  const { attention: a, hiddenSize: D } = shape;
  const { act, cast, turn } = widthsOf(format);
  const heads = (a.heads * a.valueDepth) / tensor;
  const latents = (a.queryLatent ?? 0) + a.latent;
  const queries = (a.heads * a.keyDepth) / tensor;
  const values = (a.heads * (a.keyDepth - a.ropeDepth + a.valueDepth)) / tensor;
  const rope = ropeBytes(shape, tensor, format);
  // One norm reads and writes; the other adds the residual and writes that too.
  const norms = (D * (6 * act + 2 * cast)) / tensor + latents * (2 * act + cast);
  const gradients = 2 * cast * (D / tensor + queries + values + latents);
  const mlp = mlpBytes(input, moe);
  return {
    forward: tokens * (norms + rope + heads * cast + mlp.forward),
    inputs:
      tokens * ((8 * act * D) / tensor + 3 * act * latents + rope + 2 * act * heads + gradients + mlp.inputs),
    weights: tokens * (turn * (D / tensor + latents + heads) + mlp.weights),
  };
}

/** Per token: SwiGLU and residual; for experts also gathering by expert, and the weighted sum back. */
function mlpBytes({ shape, tensor, format }: LayerInput, moe: boolean): Record<keyof LayerTimes, number> {
  const { hiddenSize: D, experts, denseWidth } = shape;
  const { act, operand, cast, turn } = widthsOf(format);
  const share = 1 / tensor;
  // SwiGLU: two values in, one out, cast; in the backward pass its input is read again and two gradients come out.
  const forward = 3 * act + cast + 2 * cast;
  const inputs = 5 * act + 2 * 2 * cast;
  if (!moe || !experts) {
    return {
      forward: denseWidth * share * forward + 3 * act * D * share,
      inputs: denseWidth * share * inputs + 3 * act * D * share,
      weights: turn * (denseWidth + D) * share,
    };
  }
  const width = (experts.perToken + experts.shared) * experts.width * share;
  const rows = experts.perToken * D * share;
  return {
    forward: 2 * operand * rows + 2 * act * rows + width * forward + 5 * act * D * share,
    inputs: 2 * operand * rows + 2 * act * rows + width * inputs + 4 * act * D * share,
    weights: turn * (2 * rows + width),
  };
}
