import { type Cluster, devicesOf } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import type { ComputeFormat } from './kernels.js';
import type { Recompute } from './layer.js';
import type { ScheduleName } from './pipeline/schedule.js';
import { planCache } from './stages.js';
import { estimateTraining, type TrainEstimate } from './train.js';
import { planProblem, type TrainPlan } from './train-plan.js';

/** Search for the best plan: enumerate, drop what cannot be, predict, rank, explain. */

export const OBJECTIVES = ['step-time', 'cost', 'memory'] as const;
export type Objective = (typeof OBJECTIVES)[number];

export interface SearchInput {
  globalBatch: number;
  length: number;
  formats: readonly ComputeFormat[];
  /** Limits of nodes a token to try; null is the model's own. */
  nodeLimits: readonly (number | null)[];
  objective: Objective;
  /** Slower and dearer plans are left out; dollars per trillion tokens. */
  mostStepSeconds: number;
  mostDollars: number;
  /** Highest number of plans to predict. */
  limit: number;
}

export interface Candidate {
  plan: TrainPlan;
  estimate: TrainEstimate;
  /** Its place in the enumeration, which decides between equals whoever has looked at them. */
  index: number;
}

export interface SearchResult {
  /** Best first, those that fit only. */
  ranked: Candidate[];
  /** Plans that no other beats in step time and memory at once, quickest first. */
  front: Candidate[];
  enumerated: number;
  /** Dropped before any prediction, by the constraint that they break. */
  impossible: number;
  predicted: number;
  /** Predicted, but beyond the memory. */
  tooLarge: number;
  /** Fit, but are beyond a limit. */
  limited: number;
}

const SCHEDULES: readonly ScheduleName[] = ['1f1b', 'interleaved', 'zb-h1', 'zb-v', 'dualpipe', 'dualpipe-v'];
const RECOMPUTE: readonly Recompute[] = ['none', 'selective', 'full'];
const MICRO_BATCHES = [1, 2, 4, 8] as const;
const ZERO = [1, 2, 3] as const;
const CONTEXTS = [1, 2, 4, 8] as const;

/** All plans that use every device of the cluster, in a fixed order. */
export function* enumeratePlans(
  shape: ModelShape,
  cluster: Cluster,
  input: SearchInput,
): Generator<TrainPlan> {
  const devices = devicesOf(cluster);
  const stages = shape.layers + shape.mtpDepth;
  for (const pipeline of divisors(devices).filter((p) => p <= stages)) {
    for (const tensor of divisors(devices / pipeline).filter((t) => t <= cluster.machine.node.devices)) {
      for (const context of CONTEXTS) {
        const data = devices / pipeline / tensor / context;
        if (!Number.isInteger(data)) continue;
        const ranks = data * tensor * context;
        for (const expert of shape.experts ? divisors(ranks).filter((e) => e <= 512) : [1]) {
          yield* withSchedules({ pipeline, tensor, context, data, expert, length: input.length }, input);
        }
      }
    }
  }
}

type Sizes = Pick<TrainPlan, 'pipeline' | 'tensor' | 'context' | 'data' | 'expert' | 'length'>;

function* withSchedules(sizes: Sizes, input: SearchInput): Generator<TrainPlan> {
  for (const schedule of sizes.pipeline === 1 ? SCHEDULES.slice(0, 1) : SCHEDULES) {
    for (const format of input.formats) {
      for (const recompute of RECOMPUTE) {
        for (const microBatch of MICRO_BATCHES) {
          for (const zero of ZERO) {
            for (const nodeLimit of input.nodeLimits) {
              const own = { schedule, format, recompute, microBatch, zero, nodeLimit };
              yield { ...sizes, ...own, globalBatch: input.globalBatch };
            }
          }
        }
      }
    }
  }
}

function divisors(n: number): number[] {
  const found: number[] = [];
  for (let d = 1; d <= n; d++) if (n % d === 0) found.push(d);
  return found;
}

/**
 * @param worker part `worker.index` of `worker.of` equal parts, for searching in parallel
 * @param onProgress called now and then with the number of plans looked at
 */
export function searchPlans(
  shape: ModelShape,
  cluster: Cluster,
  input: SearchInput,
  worker: { index: number; of: number } = { index: 0, of: 1 },
  onProgress: (enumerated: number) => void = () => {},
): SearchResult {
  const result: SearchResult = {
    ranked: [],
    front: [],
    enumerated: 0,
    impossible: 0,
    predicted: 0,
    tooLarge: 0,
    limited: 0,
  };
  const cache = planCache();
  for (const plan of enumeratePlans(shape, cluster, input)) {
    if (result.enumerated++ % worker.of !== worker.index) continue;
    if (result.predicted >= input.limit / worker.of) break;
    if (result.enumerated % 4096 === 0) onProgress(result.enumerated);
    if (planProblem(plan, shape, cluster)) {
      result.impossible++;
      continue;
    }
    const estimate = estimateTraining(shape, cluster, plan, cache);
    result.predicted++;
    if (!estimate.memory.fits) result.tooLarge++;
    else if (
      estimate.stepSeconds > input.mostStepSeconds ||
      estimate.dollarsPerTrillionTokens > input.mostDollars
    )
      result.limited++;
    else keep(result.ranked, { plan, estimate, index: result.enumerated - 1 });
  }
  return finish(result, input.objective);
}

/** Joins the parts of a search. */
export function mergeResults(parts: readonly SearchResult[], objective: Objective): SearchResult {
  const sum = (field: 'impossible' | 'predicted' | 'tooLarge' | 'limited') =>
    parts.reduce((n, part) => n + part[field], 0);
  // What is on the front of the whole is on that of its part, though it may rank too low to be kept there.
  return finish(
    {
      ranked: parts.flatMap((part) => part.ranked),
      front: parts.flatMap((part) => part.front),
      enumerated: Math.max(0, ...parts.map((part) => part.enumerated)),
      impossible: sum('impossible'),
      predicted: sum('predicted'),
      tooLarge: sum('tooLarge'),
      limited: sum('limited'),
    },
    objective,
  );
}

const KEPT = 2000;

/** Keeps memory bounded: beyond twice what is wanted, the slower half goes. */
function keep(ranked: Candidate[], candidate: Candidate): void {
  ranked.push(candidate);
  if (ranked.length < 2 * KEPT) return;
  const front = new Set(paretoFront(ranked));
  ranked.sort((a, b) => a.estimate.stepSeconds - b.estimate.stepSeconds || a.index - b.index);
  const rest = ranked.splice(KEPT).filter((one) => front.has(one));
  ranked.push(...rest);
}

function finish(result: SearchResult, objective: Objective): SearchResult {
  const ranked = result.ranked.sort((a, b) => score(a, objective) - score(b, objective) || a.index - b.index);
  return { ...result, ranked: ranked.slice(0, KEPT), front: paretoFront([...ranked, ...result.front]) };
}

/** Less is better; equal plans are told apart by memory. */
function score({ estimate: e }: Candidate, objective: Objective): number {
  const tie = 1 + 1e-6 * (e.memory.total / e.memory.capacity);
  if (objective === 'memory') return e.memory.total * (1 + 1e-6 * e.stepSeconds);
  return (objective === 'cost' ? e.dollarsPerTrillionTokens : e.stepSeconds) * tie;
}

/** Those that no other beats in step time and in memory. */
export function paretoFront(candidates: readonly Candidate[]): Candidate[] {
  const sorted = [...candidates].sort(
    (a, b) =>
      a.estimate.stepSeconds - b.estimate.stepSeconds ||
      a.estimate.memory.total - b.estimate.memory.total ||
      a.index - b.index,
  );
  let least = Number.POSITIVE_INFINITY;
  return sorted.filter(({ estimate }) => {
    if (estimate.memory.total >= least) return false;
    least = estimate.memory.total;
    return true;
  });
}

/** Why the first is ahead of the second: their differences in the plan and in seconds, largest first. */
export function explain(best: Candidate, other: Candidate): string {
  const fields = [
    'pipeline',
    'expert',
    'data',
    'tensor',
    'context',
    'nodeLimit',
    'schedule',
    'microBatch',
    'format',
    'recompute',
    'zero',
  ] as const;
  const changes = fields
    .filter((field) => best.plan[field] !== other.plan[field])
    .map((field) => `${field} ${other.plan[field]} in place of ${best.plan[field]}`);
  const parts = (e: TrainEstimate) => ({
    work: e.workSeconds,
    bubble: e.bubbleSeconds,
    'data parallel end': e.end.reduceSeconds + e.end.updateSeconds + e.end.gatherSeconds,
  });
  const [a, b] = [parts(best.estimate), parts(other.estimate)];
  const seconds = (Object.keys(a) as (keyof typeof a)[])
    .map((name) => ({ name, more: b[name] - a[name] }))
    .filter(({ more }) => Math.abs(more) > 1e-3 * best.estimate.stepSeconds)
    .sort((x, y) => Math.abs(y.more) - Math.abs(x.more))
    .map(({ name, more }) => `${name} ${more > 0 ? '+' : '−'}${Math.abs(more).toFixed(2)} s`);
  const memory = (other.estimate.memory.total - best.estimate.memory.total) / 1e9;
  const costs = seconds.length > 0 ? seconds.join(', ') : 'the same time';
  return `${changes.join(', ')}: ${costs}, memory ${memory >= 0 ? '+' : '−'}${Math.abs(memory).toFixed(1)} GB`;
}
