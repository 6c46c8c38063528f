import type { Cluster } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { type Replicated, replicatedParameters } from './data-parallel.js';
import { BYTES } from './kernels.js';
import { peakActivations } from './pipeline/formulas.js';
import type { Stage } from './stages.js';
import { microBatches, type TrainPlan } from './train-plan.js';

/** Bytes of the fullest device in training. */
export interface TrainMemory {
  weights: number;
  gradients: number;
  /** FP32 masters and AdamW's moments. */
  optimizer: number;
  activations: number;
  /** Buffers of dispatch and combine. */
  buffers: number;
  total: number;
  capacity: number;
  fits: boolean;
}

/** What the driver, the allocator's rounding and workspaces keep. */
const RESERVE_BYTES = 4e9; // assumed

export function trainMemory(
  shape: ModelShape,
  { machine }: Cluster,
  plan: TrainPlan,
  stages: readonly Stage[],
): TrainMemory {
  const groups = replicatedParameters(machine, plan, stages);
  const held = (bytes: number, shardedFrom: number) =>
    groups.reduce((sum, group) => sum + bytes * group.parameters * share(group, plan, shardedFrom), 0);
  const weightBytes = plan.format === 'fp32' ? 4 : BYTES[plan.format];
  const momentBytes = plan.format === 'fp32' ? 8 : 4;
  const masterBytes = plan.format === 'fp32' ? 0 : 4;
  const parts = {
    weights: held(weightBytes, 3) + wideTables(shape, plan),
    gradients: held(4, 2),
    optimizer: held(masterBytes + momentBytes, 1),
    activations: activationBytes(shape, plan, stages),
    buffers: bufferBytes(shape, plan),
  };
  const total = Object.values(parts).reduce((a, b) => a + b, RESERVE_BYTES);
  const capacity = machine.device.memoryBytes.value;
  return { ...parts, total, capacity, fits: total <= capacity };
}

/** Embedding and head stay in BF16 where Linears are in FP8 [TR §3.3.1]. */
const wideTables = (shape: ModelShape, plan: TrainPlan): number =>
  plan.format === 'fp8' ? (2 * shape.vocabSize * shape.hiddenSize) / plan.tensor : 0;

const share = ({ replicas }: Replicated, plan: TrainPlan, shardedFrom: number): number =>
  plan.zero >= shardedFrom ? 1 / replicas : 1;

/** Stage activations held at once, of the device with the most layers, and the logits of the last stage. */
function activationBytes(shape: ModelShape, plan: TrainPlan, stages: readonly Stage[]): number {
  const tokens = (plan.microBatch * plan.length) / plan.context;
  // Under DualPipe a device has a stage from either end.
  const both = plan.schedule === 'dualpipe' && plan.pipeline > 1;
  const layers = Math.max(
    ...stages.map(({ layers: own }, i) => (both ? (own + stages[stages.length - 1 - i]!.layers) / 2 : own)),
  );
  const held = plan.pipeline === 1 ? 1 : heldAtOnce(plan);
  const logits = (2 * tokens * shape.vocabSize * 2) / plan.tensor;
  return held * layers * tokens * layerActivationBytes(shape, plan) + logits;
}

/** In stages of a plain pipeline; chunks are half as large. */
function heldAtOnce(plan: TrainPlan): number {
  const peak = peakActivations(plan.schedule, plan.pipeline, microBatches(plan));
  return ['interleaved', 'zb-v'].includes(plan.schedule) ? peak / 2 : peak;
}

/**
 * Bytes that a layer keeps per token: inputs of every Linear in its operand format, what attention needs, and SwiGLU's input
 * [TR §3.2.3, §3.3.3]. Full recomputation keeps the layer's input.
 */
export function layerActivationBytes(shape: ModelShape, plan: TrainPlan): number {
  const { attention: a, hiddenSize: D, experts } = shape;
  const act = plan.format === 'fp32' ? 4 : 2;
  const operand = plan.format === 'fp8' ? 1 : act;
  if (plan.recompute === 'full') return (act * D) / plan.tensor;
  const again = plan.recompute === 'selective';
  const heads = (a.heads * a.valueDepth) / plan.tensor;
  const queries = (a.heads * a.keyDepth) / plan.tensor;
  const keyValues =
    ((a.kind === 'mla' ? a.heads : a.keyValueHeads) * (a.keyDepth + a.valueDepth)) / plan.tensor;
  const latents = a.kind === 'mla' ? (a.queryLatent ?? 0) + a.latent + a.ropeDepth : 0;
  const upProjected = again && a.kind === 'mla' ? 0 : act * (queries + keyValues);
  // Under FP8 the attention's output is kept once, in E5M6 [TR §3.3.3].
  const output = plan.format === 'fp8' ? 1.5 * heads : act * heads;
  const residuals = 2 * act * D + (again ? 0 : 2 * operand * D);
  const attention = residuals / plan.tensor + act * latents + upProjected + output;
  if (!experts) return attention + ((again ? 2 : 3) * operand * shape.denseWidth) / plan.tensor;
  const width = (experts.perToken + experts.shared) * experts.width;
  const rows = experts.perToken * D * operand;
  return attention + (rows + (again ? 2 : 3) * operand * width) / plan.tensor;
}

/** Received tokens of two micro-batches in flight, in and out. */
function bufferBytes({ experts, hiddenSize }: ModelShape, plan: TrainPlan): number {
  if (!experts || plan.expert === 1) return 0;
  const act = plan.format === 'fp32' ? 4 : 2;
  const tokens = (plan.microBatch * plan.length) / plan.context;
  return 2 * 2 * act * tokens * experts.perToken * hiddenSize;
}
