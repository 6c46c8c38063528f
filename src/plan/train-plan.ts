import { UserError } from '../errors.js';
import { type Cluster, devicesOf } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { BF16_WIRE, FP8_WIRE, type WireFormats } from './exchange.js';
import type { ComputeFormat } from './kernels.js';
import type { Recompute } from './layer.js';
import type { ScheduleName } from './pipeline/schedule.js';

/** How a training run is laid over a cluster. */
export interface TrainPlan {
  /** Pipeline stages. */
  pipeline: number;
  /** Devices that the experts of a layer are spread over, out of those that work on other data. */
  expert: number;
  /** Replicas with data of their own. */
  data: number;
  tensor: number;
  /** Devices that share the tokens of a sequence, keys and values going round between them [arXiv 2310.01889]. */
  context: number;
  schedule: ScheduleName;
  /** Sequences of a micro-batch, and of one step over all replicas. */
  microBatch: number;
  globalBatch: number;
  /** Tokens of a sequence. */
  length: number;
  format: ComputeFormat;
  recompute: Recompute;
  /** Stages of ZeRO: 1 shards the optimizer's state, 2 gradients too, 3 weights too [arXiv 1910.02054]. */
  zero: 0 | 1 | 2 | 3;
  /** Nodes that a token may go to, in place of the model's own limit [ISCA §4.3]; null leaves that. */
  nodeLimit: number | null;
}

/** DeepSeek-V3's own on 2,048 H800 [TR §3.2; ISCA table 4]. */
export const DEEPSEEK_V3_PLAN: TrainPlan = {
  pipeline: 16,
  expert: 64,
  data: 128,
  tensor: 1,
  context: 1,
  schedule: 'dualpipe',
  microBatch: 1,
  globalBatch: 15360,
  length: 4096,
  format: 'fp8',
  recompute: 'selective',
  zero: 1,
  nodeLimit: null,
};

export const microBatches = (p: TrainPlan): number => p.globalBatch / (p.data * p.microBatch);
export const planDevices = (p: TrainPlan): number => p.pipeline * p.data * p.tensor * p.context;
/** Devices that hold the same layers: experts are spread over some of them, and all of them reduce gradients. */
export const stageRanks = (p: TrainPlan): number => p.data * p.tensor * p.context;
export const wireOf = (format: ComputeFormat): WireFormats => (format === 'fp8' ? FP8_WIRE : BF16_WIRE);

/** What a plan breaks, with the nearest value that would do; undefined where it can be. */
export function planProblem(p: TrainPlan, shape: ModelShape, cluster: Cluster): string | undefined {
  return (
    sizeProblem(p, shape, cluster) ??
    expertProblem(p, shape) ??
    batchProblem(p) ??
    machineProblem(p, shape, cluster)
  );
}

/** @throws UserError with the constraint and the nearest valid value */
export function checkPlan(p: TrainPlan, shape: ModelShape, cluster: Cluster): void {
  const problem = planProblem(p, shape, cluster);
  if (problem) throw new UserError(problem);
}

function sizeProblem(p: TrainPlan, shape: ModelShape, cluster: Cluster): string | undefined {
  const [needed, given] = [planDevices(p), devicesOf(cluster)];
  if (needed > given) {
    const data = Math.floor(given / (p.pipeline * p.tensor * p.context));
    const remedy =
      data > 0 ? `the most is data = ${data}` : `lower pipeline (${p.pipeline}) or tensor (${p.tensor})`;
    const context = p.context > 1 ? ` × context ${p.context}` : '';
    return `pipeline ${p.pipeline} × data ${p.data} × tensor ${p.tensor}${context} needs ${needed} devices, the cluster has ${given}; ${remedy}`;
  }
  const stages = shape.layers + shape.mtpDepth;
  if (p.pipeline > stages)
    return `pipeline (${p.pipeline}) exceeds the ${stages} layers; take at most ${stages}`;
  return undefined;
}

function expertProblem(p: TrainPlan, shape: ModelShape): string | undefined {
  const ranks = stageRanks(p);
  if (!shape.experts) {
    return p.expert === 1 ? undefined : `expert (${p.expert}) must be 1: the model has no experts`;
  }
  if (shape.experts.routed % p.expert !== 0) {
    return `expert (${p.expert}) must divide the ${shape.experts.routed} experts; the nearest is ${nearestDivisor(shape.experts.routed, p.expert)}`;
  }
  if (ranks % p.expert !== 0) {
    return `expert (${p.expert}) must divide data × tensor × context (${ranks}); the nearest is ${nearestDivisor(ranks, p.expert)}`;
  }
  const { groups } = shape.experts;
  if (p.nodeLimit !== null && p.nodeLimit > groups) {
    return groups === 1
      ? 'the router of the model knows no groups, so that nodes cannot be limited; leave the node limit out'
      : `node limit (${p.nodeLimit}) exceeds the ${groups} groups of the router; take at most ${groups}`;
  }
  return undefined;
}

function batchProblem(p: TrainPlan): string | undefined {
  const count = microBatches(p);
  if (!Number.isInteger(count) || count < 1) {
    const unit = p.data * p.microBatch;
    const nearest = Math.max(1, Math.round(p.globalBatch / unit)) * unit;
    return `batch (${p.globalBatch}) must be a multiple of data × micro-batch (${unit}); the nearest is ${nearest}`;
  }
  const twice = ['dualpipe', 'dualpipe-v', 'zb-v'].includes(p.schedule);
  const least = p.pipeline === 1 ? 1 : twice ? 2 * p.pipeline : p.schedule === 'zb-h1' ? p.pipeline : 1;
  if (count < least) {
    return `${p.schedule} needs at least ${least} micro-batches a step, not ${count}; raise the batch to ${least * p.data * p.microBatch}`;
  }
  if (p.schedule === 'dualpipe' && p.pipeline > 1 && (p.pipeline % 2 !== 0 || count % 2 !== 0)) {
    return `dualpipe needs an even pipeline (${p.pipeline}) and an even number of micro-batches (${count})`;
  }
  if (p.schedule === 'interleaved' && count % p.pipeline !== 0) {
    return `interleaved needs micro-batches (${count}) in multiples of pipeline (${p.pipeline})`;
  }
  return undefined;
}

function machineProblem(p: TrainPlan, shape: ModelShape, { machine: m }: Cluster): string | undefined {
  if (!m.device.peakFlopsPerSecond[p.format]) {
    return `${m.name} does not compute in ${p.format}; it has ${Object.keys(m.device.peakFlopsPerSecond).join(', ')}`;
  }
  if (shape.attention.heads % p.tensor !== 0) {
    return `tensor (${p.tensor}) must divide the ${shape.attention.heads} heads; the nearest is ${nearestDivisor(shape.attention.heads, p.tensor)}`;
  }
  if (p.tensor > m.node.devices) {
    return `tensor (${p.tensor}) exceeds the ${m.node.devices} devices of a node; take at most ${m.node.devices}`;
  }
  if (p.length % p.context !== 0) {
    return `context (${p.context}) must divide the ${p.length} tokens of a sequence; the nearest is ${nearestDivisor(p.length, p.context)}`;
  }
  return undefined;
}

/** The divisor of `n` that is nearest to what is wanted. */
export function nearestDivisor(n: number, wanted: number): number {
  let best = 1;
  for (let d = 1; d <= n; d++) if (n % d === 0 && Math.abs(d - wanted) < Math.abs(best - wanted)) best = d;
  return best;
}
