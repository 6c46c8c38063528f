import { type Cluster, devicesOf, type Machine } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { type StepEnd, stepEnd } from './data-parallel.js';
import { trainingFlopsPerToken } from './flops.js';
import { passSeconds } from './layer.js';
import { bubbleSeconds, sendsInLine } from './pipeline/formulas.js';
import type { PassTimes } from './pipeline/simulate.js';
import { stageTransferSeconds } from './stage-transfer.js';
import {
  cutStages,
  deviceStages,
  overlappedSeconds,
  type PlanCache,
  type Stage,
  stageSeconds,
} from './stages.js';
import { type TrainMemory, trainMemory } from './train-memory.js';
import { checkPlan, microBatches, planDevices, type TrainPlan } from './train-plan.js';

/** One step of training, estimated by formula. */
export interface TrainEstimate {
  stepSeconds: number;
  /** Micro-batches through the slowest stage, waiting left out. */
  workSeconds: number;
  /** Waiting, transfers between stages included. */
  bubbleSeconds: number;
  end: StepEnd;
  tokensPerStep: number;
  tokensPerSecond: number;
  tokensPerDay: number;
  /** Of the devices that the plan uses. */
  devices: number;
  /** Model FLOPs per device and second, MTP left out as the paper does [ISCA table 4]. */
  causalFlopsPerSecond: number;
  fullFlopsPerSecond: number;
  /** Model FLOPs utilisation against the BF16 peak. */
  causalMfu: number;
  fullMfu: number;
  deviceHoursPerTrillionTokens: number;
  dollarsPerTrillionTokens: number;
  memory: TrainMemory;
}

/**
 * Estimates a training step. Every device is taken to be as slow as the slowest.
 * @param cache shared by estimates of one model on one machine
 * @throws UserError where the plan cannot be
 */
export function estimateTraining(
  shape: ModelShape,
  cluster: Cluster,
  plan: TrainPlan,
  cache?: PlanCache,
): TrainEstimate {
  checkPlan(plan, shape, cluster);
  const { machine } = cluster;
  const stages = cutStages(shape, machine, plan, cache);
  const times = passTimes(slowest(deviceStages(stages, plan), plan));
  const [work, waiting] = pipelineSeconds(plan, times);
  const sends = plan.pipeline > 1 ? sendsInLine(plan.schedule, plan.pipeline, microBatches(plan)) : 0;
  const bubble = waiting + sends * stageTransferSeconds(shape, machine, plan);
  const end = stepEnd(machine, plan, stages);
  const stepSeconds = work + bubble + end.reduceSeconds + end.updateSeconds + end.gatherSeconds;
  return {
    stepSeconds,
    workSeconds: work,
    bubbleSeconds: bubble,
    end,
    ...throughput(shape, machine, plan, stepSeconds),
    memory: trainMemory(shape, cluster, plan, stages),
  };
}

export const slowest = (stages: readonly Stage[], plan: TrainPlan): Stage =>
  stages.reduce((worst, stage) => (stageSeconds(stage, plan) > stageSeconds(worst, plan) ? stage : worst));

export function passTimes(stage: Stage): Required<Omit<PassTimes, 'send'>> {
  const weights = passSeconds(stage.alone.weights);
  return {
    forward: passSeconds(stage.alone.forward),
    backward: passSeconds(stage.alone.inputs) + weights,
    backwardWeights: weights,
    overlapped: overlappedSeconds(stage, stage),
  };
}

/**
 * Work and waiting of the device that waits longest, which together are the step: under DualPipe the one in the middle, where
 * all but P of the passes are pairs.
 */
export function pipelineSeconds(plan: TrainPlan, times: ReturnType<typeof passTimes>): [number, number] {
  const count = microBatches(plan);
  const alone = times.forward + times.backward;
  if (plan.pipeline === 1) return [count * alone, 0];
  // One layer's worth of chunks is half a stage.
  const chunks = ['interleaved', 'zb-v', 'dualpipe-v'].includes(plan.schedule) ? 2 : 1;
  const chunk = chunks === 1 ? times : scaleTimes(times, 1 / chunks);
  const bubble = Math.max(0, bubbleSeconds(plan.schedule, plan.pipeline, chunk));
  if (plan.schedule !== 'dualpipe' && plan.schedule !== 'dualpipe-v') return [count * alone, bubble];
  const single = plan.schedule === 'dualpipe' ? plan.pipeline : plan.pipeline * 2;
  const pairs = chunks * count - single;
  return [pairs * chunk.overlapped + single * (chunk.forward + chunk.backward), bubble];
}

const scaleTimes = (t: ReturnType<typeof passTimes>, by: number): ReturnType<typeof passTimes> => ({
  forward: t.forward * by,
  backward: t.backward * by,
  backwardWeights: t.backwardWeights * by,
  overlapped: t.overlapped * by,
});

/** Rates, utilisation and cost of a step that takes so long. */
export function throughput(
  shape: ModelShape,
  machine: Machine,
  plan: TrainPlan,
  stepSeconds: number,
): Omit<TrainEstimate, 'stepSeconds' | 'workSeconds' | 'bubbleSeconds' | 'end' | 'memory'> {
  const tokensPerStep = plan.globalBatch * plan.length;
  const tokensPerSecond = tokensPerStep / stepSeconds;
  const devices = planDevices(plan);
  const perDevice = (causal: boolean) =>
    (trainingFlopsPerToken(shape, plan.length, causal, 0) * tokensPerSecond) / devices;
  const peak = machine.device.peakFlopsPerSecond.bf16.value;
  const hours = ((1e12 / tokensPerSecond) * devices) / 3600;
  return {
    tokensPerStep,
    tokensPerSecond,
    tokensPerDay: tokensPerSecond * 86400,
    devices,
    causalFlopsPerSecond: perDevice(true),
    fullFlopsPerSecond: perDevice(false),
    causalMfu: perDevice(true) / peak,
    fullMfu: perDevice(false) / peak,
    deviceHoursPerTrillionTokens: hours,
    dollarsPerTrillionTokens: hours * machine.device.dollarsPerHour.value,
  };
}

/** How a run of many steps fares with failures. */
export interface Goodput {
  /** Share of the time that makes progress. */
  share: number;
  /** Seconds between checkpoints that lose least [Young, CACM 17(9)]. */
  bestIntervalSeconds: number;
  failuresPerDay: number;
}

/**
 * Hours between failures of one device: 419 interruptions of 16,384 H100 in 54 days [arXiv 2407.21783 §3.3.4].
 */
export const HOURS_BETWEEN_FAILURES = (54 * 24 * 16384) / 419;

/**
 * @param checkpointSeconds that writing a checkpoint stops the run for
 * @param restartSeconds from a failure to the first step after it
 * @param failures that remain of those that [arXiv 2407.21783] counted, as a share
 */
export function goodput(
  cluster: Cluster,
  checkpointSeconds: number,
  restartSeconds: number,
  intervalSeconds?: number,
  failures = 1,
): Goodput {
  const between = (HOURS_BETWEEN_FAILURES * 3600) / (devicesOf(cluster) * failures);
  const best = Math.sqrt(2 * checkpointSeconds * between);
  const interval = intervalSeconds ?? best;
  const lost = checkpointSeconds / interval + (interval / 2 + restartSeconds) / between;
  return { share: Math.max(0, 1 - lost), bestIntervalSeconds: best, failuresPerDay: 86400 / between };
}

/** A whole run, failures included. */
export interface TrainRun {
  tokens: number;
  days: number;
  deviceHours: number;
  dollars: number;
}

/** @param good how the run fares with failures */
export function trainRun(tokens: number, cluster: Cluster, estimate: TrainEstimate, good: Goodput): TrainRun {
  const seconds = tokens / estimate.tokensPerSecond / good.share;
  const deviceHours = (seconds * estimate.devices) / 3600;
  const dollars = deviceHours * cluster.machine.device.dollarsPerHour.value;
  return { tokens, days: seconds / 86400, deviceHours, dollars };
}
