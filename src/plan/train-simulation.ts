import type { Cluster } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { type StepEnd, stepEnd } from './data-parallel.js';
import { passSeconds } from './layer.js';
import { makeSchedule } from './pipeline/formulas.js';
import type { Schedule, Work } from './pipeline/schedule.js';
import { simulate, type Timeline } from './pipeline/simulate.js';
import { stageTransferSeconds } from './stage-transfer.js';
import { cutStages, overlappedSeconds, type Stage } from './stages.js';
import { type TrainEstimate, throughput } from './train.js';
import { checkPlan, microBatches, type TrainPlan } from './train-plan.js';

/** Seconds of one step by kind of work, mean over the devices; parts as [ISCA §5.1, table 4] tells them apart. */
export interface StepParts {
  /** Forward passes that stand alone, 1F. */
  forward: number;
  /** Backward passes for the inputs that stand alone, 1B. A whole backward pass counts here and in `weights`. */
  inputs: number;
  /** Backward passes for the weights that stand alone, 1W. */
  weights: number;
  /** Forward and backward passes that overlap. */
  overlapped: number;
  bubble: number;
  /** Gradients reduced, parameters updated and gathered. */
  optimizer: number;
}

export interface TrainSimulation extends ReturnType<typeof throughput> {
  stepSeconds: number;
  parts: StepParts;
  end: StepEnd;
  schedule: Schedule;
  timeline: Timeline;
}

/**
 * Runs one step event by event, every stage with its own times and every transfer between stages on the network.
 * @throws UserError where the plan cannot be
 */
export function simulateTraining(shape: ModelShape, cluster: Cluster, plan: TrainPlan): TrainSimulation {
  checkPlan(plan, shape, cluster);
  const { machine } = cluster;
  const chunks = ['interleaved', 'zb-v', 'dualpipe-v'].includes(plan.schedule) ? 2 : 1;
  const stages = cutStages(shape, machine, { ...plan, pipeline: plan.pipeline * chunks });
  const schedule = makeSchedule(plan.schedule, plan.pipeline, microBatches(plan), chunks);
  const send = stageTransferSeconds(shape, machine, plan);
  const timeline = simulate(schedule, { seconds: (work) => workSeconds(work, stages), send });
  const end = stepEnd(machine, plan, cutStages(shape, machine, plan));
  const optimizer = end.reduceSeconds + end.updateSeconds + end.gatherSeconds;
  const stepSeconds = timeline.seconds + optimizer;
  const parts = { ...partsOf(timeline, stages, plan.pipeline), optimizer };
  return { stepSeconds, parts, end, schedule, timeline, ...throughput(shape, machine, plan, stepSeconds) };
}

function workSeconds(work: Work, stages: readonly Stage[]): number {
  const [first, second] = work;
  if (second) {
    const [F, B] = first.kind === 'F' ? [first, second] : [second, first];
    return overlappedSeconds(stages[F.stage]!, stages[B.stage]!);
  }
  const { forward, inputs, weights } = stages[first.stage]!.alone;
  const [F, I, W] = [passSeconds(forward), passSeconds(inputs), passSeconds(weights)];
  return { F, B: I + W, I, W }[first.kind];
}

function partsOf(
  timeline: Timeline,
  stages: readonly Stage[],
  devices: number,
): Omit<StepParts, 'optimizer'> {
  const sums = { forward: 0, inputs: 0, weights: 0, overlapped: 0 };
  for (const { work, start, end } of timeline.intervals) {
    const [{ kind, stage }] = work;
    const seconds = (end - start) / devices;
    if (work.length === 2) sums.overlapped += seconds;
    else if (kind === 'F') sums.forward += seconds;
    else if (kind === 'I') sums.inputs += seconds;
    else if (kind === 'W') sums.weights += seconds;
    else {
      const own = passSeconds(stages[stage]!.alone.weights) / devices;
      sums.weights += own;
      sums.inputs += seconds - own;
    }
  }
  return { ...sums, bubble: timeline.bubbles.reduce((a, b) => a + b, 0) / devices };
}

/** What both fidelities of one step say, for tables. */
export type StepFigures = Pick<
  TrainEstimate,
  'stepSeconds' | 'tokensPerDay' | 'causalFlopsPerSecond' | 'fullFlopsPerSecond' | 'causalMfu' | 'fullMfu'
>;
