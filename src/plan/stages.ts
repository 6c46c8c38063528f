import type { Machine } from '../spec/machine.js';
import { hasExperts, type ModelShape } from '../spec/shape.js';
import { elementwiseSeconds, gemmSeconds } from './kernels.js';
import {
  addParts,
  computeSeconds,
  type LayerInput,
  type LayerTimes,
  layerTimes,
  NO_PARTS,
  passSeconds,
} from './layer.js';
import { attentionWeights } from './parameters.js';
import { type TrainPlan, wireOf } from './train-plan.js';

/** A model cut into pipeline stages of nearly equal time. */
export interface Stage {
  /** With all units, as passes run that stand alone. */
  alone: LayerTimes;
  /** With the units that communication leaves, as passes run that overlap. */
  overlapped: LayerTimes;
  layers: number;
  /** Parameters that every replica holds, and those of all experts of the stage. */
  denseParameters: number;
  expertParameters: number;
}

/** Load of the busiest expert over the mean, with balancing by bias: MaxVio 0.04 [arXiv 2408.15664 table 2]. */
export const EXPERT_IMBALANCE = 1.04;

const NO_TIMES: LayerTimes = { forward: NO_PARTS, inputs: NO_PARTS, weights: NO_PARTS };

/** What estimates of one model on one machine share: many plans differ in neither pieces nor stages. */
export interface PlanCache {
  /** Kinds of pieces, by what their times depend on. */
  pieces: Map<string, Stage[]>;
  stages: Map<string, Stage[]>;
}

export const planCache = (): PlanCache => ({ pieces: new Map(), stages: new Map() });

/** Cuts the model into `pipeline` stages so that the slowest is as quick as contiguous layers allow. */
export function cutStages(
  shape: ModelShape,
  machine: Machine,
  plan: TrainPlan,
  cache: PlanCache = planCache(),
): Stage[] {
  const { microBatch, length, format, tensor, context, expert, recompute, nodeLimit } = plan;
  const key = `${microBatch} ${length} ${format} ${tensor} ${context} ${expert} ${recompute} ${nodeLimit}`;
  const cut = `${key} ${plan.pipeline} ${overlaps(plan)}`;
  const known = cache.stages.get(cut);
  if (known) return known;
  const pieces = cache.pieces.get(key) ?? pieceKinds(shape, machine, plan);
  cache.pieces.set(key, pieces);
  const stages = evenStages(shape, plan, pieces);
  cache.stages.set(cut, stages);
  return stages;
}

function evenStages(shape: ModelShape, plan: TrainPlan, pieces: readonly Stage[]): Stage[] {
  const order = pieceOrder(shape);
  const seconds = pieces.map((piece) => stageSeconds(piece, plan));
  const times = order.map((kind) => seconds[kind]!);
  const all = times.reduce((a, b) => a + b, 0);
  let [low, high] = [Math.max(all / plan.pipeline, ...seconds), all];
  // To a thousandth of the whole: finer differences are no difference to a plan.
  while (high - low > all * 1e-3) {
    const middle = (low + high) / 2;
    if (countGroups(times, middle) <= plan.pipeline) high = middle;
    else low = middle;
  }
  return groupPieces(order, times, high, pieces, plan.pipeline);
}

/** Whether the schedule makes pairs of passes that overlap. */
const overlaps = ({ schedule }: TrainPlan): boolean => schedule === 'dualpipe' || schedule === 'dualpipe-v';

/** What one micro-batch costs a stage: a pair that overlaps where the schedule makes such pairs. */
export const stageSeconds = (stage: Stage, plan: TrainPlan): number =>
  overlaps(plan) ? overlappedSeconds(stage, stage) : totalSeconds(stage.alone);

/**
 * What each device has to do per micro-batch of its own direction: a stage, or under DualPipe the mean of one from either end
 * [TR §3.2.1].
 */
export function deviceStages(stages: readonly Stage[], { schedule, pipeline }: TrainPlan): Stage[] {
  if (schedule !== 'dualpipe' || pipeline === 1) return [...stages];
  return stages
    .slice(0, stages.length / 2)
    .map((stage, d) => joinPieces([stage, stages[stages.length - 1 - d]!], [0.5, 0.5]));
}

/** How many stages there are if each takes pieces until it would exceed `limit` seconds. */
function countGroups(times: readonly number[], limit: number): number {
  let [groups, sum] = [1, 0];
  for (const time of times) {
    if (sum + time > limit && sum > 0) {
      groups++;
      sum = 0;
    }
    sum += time;
  }
  return groups;
}

function groupPieces(
  order: readonly number[],
  times: readonly number[],
  limit: number,
  pieces: readonly Stage[],
  wanted: number,
): Stage[] {
  const made = new Map<string, Stage>();
  const stages: Stage[] = [];
  let sum = 0;
  let counts = pieces.map(() => 0);
  const close = () => {
    const key = counts.join(' ');
    const stage = made.get(key) ?? joinPieces(pieces, counts);
    made.set(key, stage);
    stages.push(stage);
  };
  order.forEach((kind, i) => {
    if (sum + times[i]! > limit && sum > 0) {
      close();
      sum = 0;
      counts = pieces.map(() => 0);
    }
    sum += times[i]!;
    counts[kind]!++;
  });
  close();
  while (stages.length < wanted) stages.push(EMPTY);
  return stages;
}

const EMPTY: Stage = {
  alone: NO_TIMES,
  overlapped: NO_TIMES,
  layers: 0,
  denseParameters: 0,
  expertParameters: 0,
};

export const totalSeconds = ({ forward, inputs, weights }: LayerTimes): number =>
  passSeconds(forward) + passSeconds(inputs) + passSeconds(weights);

const addTimes = (a: LayerTimes, b: LayerTimes, times: number): LayerTimes => ({
  forward: addParts(a.forward, b.forward, times),
  inputs: addParts(a.inputs, b.inputs, times),
  weights: addParts(a.weights, b.weights, times),
});

function joinPieces(pieces: readonly Stage[], counts: readonly number[]): Stage {
  let sum = EMPTY;
  pieces.forEach((piece, kind) => {
    const count = counts[kind]!;
    if (count === 0) return;
    sum = {
      alone: addTimes(sum.alone, piece.alone, count),
      overlapped: addTimes(sum.overlapped, piece.overlapped, count),
      layers: sum.layers + count * piece.layers,
      denseParameters: sum.denseParameters + count * piece.denseParameters,
      expertParameters: sum.expertParameters + count * piece.expertParameters,
    };
  });
  return sum;
}

/** Kinds of pieces, by index. */
const [EMBEDDING, DENSE, MOE, HEAD, MTP] = [0, 1, 2, 3, 4] as const;

/** From the embedding to the last MTP module. */
function pieceOrder(shape: ModelShape): number[] {
  const layers = Array.from({ length: shape.layers }, (_, l) => (hasExperts(shape, l) ? MOE : DENSE));
  return [EMBEDDING, ...layers, HEAD, ...Array.from({ length: shape.mtpDepth }, () => MTP)];
}

/** The model with the plan's own limit of nodes. */
const limited = (shape: ModelShape, { nodeLimit }: TrainPlan): ModelShape =>
  shape.experts && nodeLimit !== null
    ? { ...shape, experts: { ...shape.experts, groupsPerToken: nodeLimit } }
    : shape;

function pieceKinds(model: ModelShape, machine: Machine, plan: TrainPlan): Stage[] {
  const shape = limited(model, plan);
  const units = machine.device.units.value;
  const fewer = units - machine.kernels.communicationUnits.value;
  const input: LayerInput = {
    shape,
    machine,
    tokens: (plan.microBatch * plan.length) / plan.context,
    length: plan.length,
    format: plan.format,
    tensor: plan.tensor,
    context: plan.context,
    expertDevices: plan.expert,
    wire: wireOf(plan.format),
    imbalance: shape.experts && plan.expert > 1 ? EXPERT_IMBALANCE : 1,
    recompute: plan.recompute,
    units,
  };
  const both = (times: (input: LayerInput) => LayerTimes) => {
    const alone = times(input);
    return { alone, overlapped: fewer === units ? alone : times({ ...input, units: fewer }) };
  };
  const layer = (moe: boolean): Stage => ({
    ...both((one) => layerTimes(one, moe)),
    layers: 1,
    ...layerParameters(shape, moe),
  });
  const table = shape.vocabSize * shape.hiddenSize;
  const head: Stage = { ...EMPTY, ...both(headTimes), denseParameters: shape.tiedEmbeddings ? 0 : table };
  const [dense, moe] = [
    shape.denseLayers > 0 ? layer(false) : EMPTY,
    shape.experts && shape.layers > shape.denseLayers ? layer(true) : EMPTY,
  ];
  // Embedding and head are those of the main model [TR §2.2].
  const module = { ...head, denseParameters: 2 * shape.hiddenSize ** 2 };
  const mtp = joinPieces([shape.experts ? moe : dense, module], [1, 1]);
  return [{ ...EMPTY, denseParameters: table }, dense, moe, head, mtp];
}

function layerParameters(
  shape: ModelShape,
  moe: boolean,
): Pick<Stage, 'denseParameters' | 'expertParameters'> {
  const { hiddenSize: D, experts } = shape;
  const attention = attentionWeights(shape) + 2 * D;
  if (!moe || !experts) return { denseParameters: attention + 3 * D * shape.denseWidth, expertParameters: 0 };
  const one = 3 * D * experts.width;
  return {
    denseParameters: attention + experts.shared * one + experts.routed * D,
    expertParameters: experts.routed * one,
  };
}

/** Output head in BF16 and the loss, which reads and writes the logits [TR §3.3.1]. */
function headTimes({ shape, machine: m, tokens, tensor, units, format }: LayerInput): LayerTimes {
  const gemm = { rows: tokens, n: shape.vocabSize / tensor, k: shape.hiddenSize };
  const wide = format === 'fp32' ? 'fp32' : 'bf16';
  const logits = elementwiseSeconds(m, (tokens * shape.vocabSize * (wide === 'fp32' ? 4 : 2)) / tensor);
  const part = (seconds: number, memory: number) => ({ ...NO_PARTS, gemm: seconds, memory });
  return {
    forward: part(gemmSeconds(m, gemm, wide, 'forward', units), logits),
    inputs: part(gemmSeconds(m, { ...gemm, n: gemm.k, k: gemm.n }, wide, 'forward', units), 2 * logits),
    weights: part(gemmSeconds(m, { rows: gemm.n, n: gemm.k, k: tokens }, wide, 'weightGradient', units), 0),
  };
}

/** A forward and a backward pass that overlap: computation on fewer units, behind which exchanges hide, or the reverse. */
export function overlappedSeconds(forward: Stage, backward: Stage): number {
  const F = forward.overlapped.forward;
  const { inputs: I, weights: W } = backward.overlapped;
  const compute = computeSeconds(F) + computeSeconds(I) + computeSeconds(W);
  return Math.max(compute, F.exchange + I.exchange + W.exchange);
}
