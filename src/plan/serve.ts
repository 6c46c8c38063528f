import type { Cluster, Machine } from '../spec/machine.js';
import { hasExperts, type ModelShape } from '../spec/shape.js';
import { cacheBytesPerToken, cacheValuesPerLayer } from './cache.js';
import { smallExchangeSeconds } from './exchange.js';
import { BYTES, type Gemm, gemmSeconds, memorySeconds, tensorParallelSeconds } from './kernels.js';
import { computeSeconds, type LayerInput, layerTimes } from './layer.js';
import { attentionWeights } from './parameters.js';
import { checkServePlan, type ServePlan } from './serve-plan.js';
import { tokensPerStep } from './speculation.js';
import { EXPERT_IMBALANCE } from './stages.js';
import { wireOf } from './train-plan.js';

export interface ServeEstimate {
  /** From a prompt's arrival at an idle device to its first token. */
  timeToFirstTokenSeconds: number;
  prefillTokensPerSecondPerDevice: number;
  prefillTokensPerSecondPerNode: number;
  /** Time per output token of one sequence. */
  timePerOutputTokenSeconds: number;
  /** Of one step, which yields more than a token where drafts are accepted. */
  decodeStep: DecodeStep;
  tokensPerStep: number;
  decodeTokensPerSecondPerDevice: number;
  decodeTokensPerSecondPerNode: number;
  dollarsPerMillionTokens: number;
  split: ServeSplit;
  memory: ServeMemory;
}

/** Devices that take prompts in beside those that decode, so that neither waits [TR §3.4]. */
export interface ServeSplit {
  /** Share of all devices that do prefill. */
  prefillShare: number;
  /** Tokens of answers a second, over all devices. */
  tokensPerSecondPerDevice: number;
  /** Dollars of both kinds per million tokens of answers. */
  dollarsPerMillionTokens: number;
  /** Sending the cache of a prompt from a device of the one kind to one of the other. */
  handOffSeconds: number;
}

export interface DecodeStep {
  seconds: number;
  /** Sums over the layers; with two micro-batches the longer of the last two counts. */
  attentionSeconds: number;
  gemmSeconds: number;
  exchangeSeconds: number;
  headSeconds: number;
}

/** Bytes of one device in serving. */
export interface ServeMemory {
  weights: number;
  cache: number;
  total: number;
  capacity: number;
  fits: boolean;
  /** Sequences of this context that fit beside the weights. */
  largestBatch: number;
  /** Longest context that fits at this batch. */
  longestContext: number;
}

/** @throws UserError where the plan cannot be */
export function estimateServing(shape: ModelShape, cluster: Cluster, plan: ServePlan): ServeEstimate {
  checkServePlan(plan, shape, cluster);
  const { machine } = cluster;
  const prefill = prefillSeconds(shape, machine, plan);
  const step = decodeStep(shape, machine, plan);
  const yields = plan.draftDepth > 0 ? tokensPerStep(plan.acceptance, plan.draftDepth) : 1;
  const decoded = (plan.batch * yields) / step.seconds / plan.tensor;
  const taken = plan.prefillTokens / prefill / plan.tensor;
  return {
    timeToFirstTokenSeconds: prefill * Math.max(1, plan.prompt / plan.prefillTokens),
    prefillTokensPerSecondPerDevice: taken,
    prefillTokensPerSecondPerNode: taken * machine.node.devices,
    timePerOutputTokenSeconds: step.seconds / yields,
    decodeStep: step,
    tokensPerStep: yields,
    decodeTokensPerSecondPerDevice: decoded,
    decodeTokensPerSecondPerNode: decoded * machine.node.devices,
    dollarsPerMillionTokens: (machine.device.dollarsPerHour.value / 3600 / decoded) * 1e6,
    split: serveSplit(shape, machine, plan, { decoded, taken }),
    memory: serveMemory(shape, machine, plan),
  };
}

/** @param rates tokens a second of one device that does nothing else */
function serveSplit(
  shape: ModelShape,
  m: Machine,
  plan: ServePlan,
  { decoded, taken }: { decoded: number; taken: number },
): ServeSplit {
  const perDecoder = ((decoded / plan.output) * plan.prompt) / taken;
  const together = decoded / (1 + perDecoder);
  const link = m.node.scaleOut ?? m.node.scaleUp;
  const bytes = (plan.prompt * cacheBytesPerToken(shape, plan.cacheBytesPerValue)) / plan.tensor;
  return {
    prefillShare: perDecoder / (1 + perDecoder),
    tokensPerSecondPerDevice: together,
    dollarsPerMillionTokens: (m.device.dollarsPerHour.value / 3600 / together) * 1e6,
    handOffSeconds: link ? bytes / link.effectiveBytesPerSecond.value + link.latencySeconds.value : 0,
  };
}

/** One pass over `prefillTokens` on every device, in two micro-batches that hide each other's exchange. */
function prefillSeconds(shape: ModelShape, machine: Machine, plan: ServePlan): number {
  const halves = plan.overlap ? 2 : 1;
  const units = machine.device.units.value;
  const input: LayerInput = {
    shape,
    machine,
    tokens: plan.prefillTokens / halves,
    length: plan.prompt,
    format: plan.format,
    tensor: plan.tensor,
    context: 1,
    expertDevices: shape.experts ? plan.devices : 1,
    wire: wireOf(plan.format),
    imbalance: shape.experts && plan.devices > 1 ? EXPERT_IMBALANCE : 1,
    recompute: 'none',
    units: plan.overlap ? units - machine.kernels.communicationUnits.value : units,
  };
  let sum = 0;
  for (const moe of [false, true]) {
    const layers = countLayers(shape, moe);
    if (layers === 0) continue;
    const { forward } = layerTimes(input, moe);
    const compute = computeSeconds(forward);
    const layer = plan.overlap ? Math.max(compute, forward.exchange) : compute + forward.exchange;
    sum += layers * halves * layer;
  }
  // Only the last token of a prompt needs the head.
  return sum + headSeconds(shape, machine, Math.ceil(plan.prefillTokens / plan.prompt), plan);
}

const countLayers = (shape: ModelShape, moe: boolean): number =>
  Array.from({ length: shape.layers }, (_, l) => hasExperts(shape, l)).filter((has) => has === moe).length;

/** One step of decoding: every sequence takes its last token and its drafts through the model. */
export function decodeStep(shape: ModelShape, machine: Machine, plan: ServePlan): DecodeStep {
  const halves = plan.overlap && shape.experts && plan.devices > 1 ? 2 : 1;
  const tokens = (plan.batch / halves) * (1 + plan.draftDepth);
  const sequences = plan.batch / halves;
  const attention = decodeAttentionSeconds(shape, machine, plan, sequences, tokens);
  const wire = wireOf(plan.format);
  const sums = 2 * tensorParallelSeconds(machine, tokens * shape.hiddenSize * 2, plan.tensor);
  let [gemms, exchanges, seconds] = [0, 0, 0];
  for (const moe of [false, true]) {
    // A draft takes one more layer for every MTP module.
    const layers = countLayers(shape, moe) + (moe === (shape.experts !== null) ? plan.draftDepth : 0);
    const gemm = decodeGemms(shape, plan, tokens, moe).reduce(
      (sum, [one, format]) => sum + gemmSeconds(machine, one, format),
      0,
    );
    const sent =
      moe && shape.experts
        ? smallExchangeSeconds(machine, shape.experts, shape.hiddenSize, tokens, plan.devices, wire)
        : { dispatch: 0, combine: 0 };
    const exchange = sent.dispatch + sent.combine;
    const compute = attention + gemm + sums;
    gemms += layers * halves * gemm;
    exchanges += layers * halves * exchange;
    seconds += layers * halves * (halves === 2 ? Math.max(compute, exchange) : compute + exchange);
  }
  const head = headSeconds(shape, machine, tokens * halves, plan) * (1 + plan.draftDepth);
  const layers = shape.layers + plan.draftDepth;
  return {
    seconds: seconds + head,
    attentionSeconds: layers * halves * attention,
    gemmSeconds: gemms,
    exchangeSeconds: exchanges,
    headSeconds: head,
  };
}

/**
 * Attention of one layer over the cache: bound by reading it or, under MLA with its many heads on one latent, by products
 * [V2 §2.1.2]. Drafts share the reading.
 */
function decodeAttentionSeconds(
  shape: ModelShape,
  m: Machine,
  plan: ServePlan,
  sequences: number,
  tokens: number,
): number {
  const { attention: a } = shape;
  const values = cacheValuesPerLayer(shape) / (a.kind === 'mla' ? 1 : Math.min(plan.tensor, a.keyValueHeads));
  const bytes = sequences * plan.context * values * plan.cacheBytesPerValue;
  const perPair = a.kind === 'mla' ? 2 * a.latent + a.ropeDepth : a.keyDepth + a.valueDepth;
  const flops = (2 * tokens * plan.context * a.heads * perPair) / plan.tensor;
  const compute = flops / m.kernels.decodeAttentionFlopsPerSecond.value;
  return Math.max(memorySeconds(m, bytes), compute) + m.kernels.launchSeconds.value;
}

type FormattedGemm = readonly [Gemm, ServePlan['format']];

/** @param tokens of one micro-batch on a device */
function decodeGemms(shape: ModelShape, plan: ServePlan, tokens: number, moe: boolean): FormattedGemm[] {
  const { hiddenSize: D, attention: a, experts } = shape;
  const { tensor, format } = plan;
  const linear = (n: number, k: number): FormattedGemm => [{ rows: tokens, n, k }, format];
  const heads = a.heads / tensor;
  const queries = heads * a.keyDepth;
  const attention =
    a.kind === 'mla'
      ? [
          linear((a.queryLatent ?? queries) + a.latent + a.ropeDepth, D),
          ...(a.queryLatent === null ? [] : [linear(queries, a.queryLatent)]),
          absorbed(tokens, heads, a.latent, a.keyDepth - a.ropeDepth),
          absorbed(tokens, heads, a.valueDepth, a.latent),
        ]
      : [linear(queries + Math.max(1, a.keyValueHeads / tensor) * (a.keyDepth + a.valueDepth), D)];
  const output = linear(D, heads * a.valueDepth);
  const mlp = (rows: number, width: number, groups: number): FormattedGemm[] => [
    [{ rows, n: 2 * width, k: D, groups }, format],
    [{ rows, n: D, k: width, groups }, format],
  ];
  if (!moe || !experts) return [...attention, output, ...mlp(tokens, shape.denseWidth / tensor, 1)];
  const groups = Math.max(1, experts.routed / plan.devices);
  const rows = ((tokens / tensor) * experts.perToken) / groups;
  const shared = experts.shared > 0 ? mlp(tokens / tensor, experts.width * experts.shared, 1) : [];
  return [...attention, output, ...mlp(rows, experts.width, groups), ...shared];
}

/** Up-projections absorbed into queries and outputs, one matrix a head, in BF16. */
const absorbed = (rows: number, heads: number, n: number, k: number): FormattedGemm => [
  { rows, n, k, groups: heads },
  'bf16',
];

const headSeconds = (shape: ModelShape, m: Machine, rows: number, plan: ServePlan): number =>
  gemmSeconds(m, { rows, n: shape.vocabSize / plan.tensor, k: shape.hiddenSize }, 'bf16');

/** What the runtime, workspaces and exchange buffers keep. */
const RESERVE_BYTES = 8e9; // assumed

export function serveMemory(shape: ModelShape, m: Machine, plan: ServePlan): ServeMemory {
  const weights = weightBytes(shape, plan);
  const perToken = cacheBytesPerToken(shape, plan.cacheBytesPerValue) / plan.tensor;
  const cache = plan.batch * (plan.context + 1 + plan.draftDepth) * perToken;
  const capacity = m.device.memoryBytes.value;
  const room = Math.max(0, capacity - weights - RESERVE_BYTES);
  const total = weights + cache + RESERVE_BYTES;
  return {
    weights,
    cache,
    total,
    capacity,
    fits: total <= capacity,
    largestBatch: Math.floor(room / (perToken * (plan.context + 1))),
    longestContext: Math.floor(room / (perToken * plan.batch)),
  };
}

function weightBytes(shape: ModelShape, plan: ServePlan): number {
  const { hiddenSize: D, experts } = shape;
  const bytes = BYTES[plan.format];
  const layers = shape.layers + plan.draftDepth;
  const dense = countLayers(shape, false) * 3 * D * shape.denseWidth;
  const moeLayers = layers - countLayers(shape, false);
  const one = experts ? 3 * D * experts.width : 0;
  const spread = experts
    ? moeLayers * ((experts.routed / plan.devices + experts.shared) * one + experts.routed * D)
    : 0;
  const tables = 2 * shape.vocabSize * D * 2;
  return bytes * ((layers * attentionWeights(shape) + dense) / plan.tensor + spread) + tables / plan.tensor;
}
