import { type Cluster, devicesOf } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import type { ComputeFormat } from './kernels.js';
import { estimateServing, type ServeEstimate } from './serve.js';
import { DEFAULT_SERVE_PLAN, type ServePlan, servePlanProblem } from './serve-plan.js';

/** Search for how to serve a model on a cluster: enumerate, drop what cannot be, estimate, rank. */

export const SERVE_OBJECTIVES = ['tpot', 'serve-cost'] as const;
/** Least time per output token, or least money per token of an answer with prefill included. */
export type ServeObjective = (typeof SERVE_OBJECTIVES)[number];

export interface ServeSearchInput {
  objective: ServeObjective;
  formats: readonly ComputeFormat[];
  context: number;
  prompt: number;
  output: number;
  acceptance: number;
  /** Slower plans are left out. */
  mostTokenSeconds: number;
  /** Plans whose devices yield fewer tokens a second, prefill included, are left out. */
  leastTokensPerSecond: number;
}

export interface ServeCandidate {
  plan: ServePlan;
  estimate: ServeEstimate;
}

export interface ServeSearchResult {
  /** Best first, those that fit and keep the limits only. */
  ranked: ServeCandidate[];
  /** Those that no other beats in time per token and in tokens a device at once, quickest first. */
  front: ServeCandidate[];
  enumerated: number;
  impossible: number;
  tooLarge: number;
  /** Beyond a limit. */
  limited: number;
}

const TENSOR = [1, 2, 4, 8, 16] as const;
const BATCHES = Array.from({ length: 11 }, (_, i) => 2 ** i);

/** Every group size, tensor share, batch, draft depth and overlap that there is, in a fixed order. */
export function* enumerateServePlans(
  shape: ModelShape,
  cluster: Cluster,
  input: ServeSearchInput,
): Generator<ServePlan> {
  const { formats, context, prompt, output, acceptance } = input;
  const drafts = Array.from({ length: shape.mtpDepth + 1 }, (_, depth) => depth);
  for (const tensor of TENSOR) {
    for (const devices of groupSizes(shape, devicesOf(cluster), tensor)) {
      for (const overlap of shape.experts && devices > 1 ? [true, false] : [false]) {
        for (const format of formats) {
          for (const draftDepth of drafts) {
            for (const batch of BATCHES) {
              const sizes = { devices, tensor, batch, context, prompt, output, format };
              yield { ...DEFAULT_SERVE_PLAN, ...sizes, overlap, draftDepth, acceptance };
            }
          }
        }
      }
    }
  }
}

/** Devices of a group: those that experts divide over, or just the tensor ranks of a dense model. */
function groupSizes({ experts }: ModelShape, most: number, tensor: number): number[] {
  if (!experts) return [tensor];
  const sizes: number[] = [];
  for (let n = tensor; n <= Math.min(most, experts.routed); n += tensor) {
    if (experts.routed % n === 0) sizes.push(n);
  }
  return sizes;
}

export function searchServing(
  shape: ModelShape,
  cluster: Cluster,
  input: ServeSearchInput,
): ServeSearchResult {
  const result: ServeSearchResult = {
    ranked: [],
    front: [],
    enumerated: 0,
    impossible: 0,
    tooLarge: 0,
    limited: 0,
  };
  for (const plan of enumerateServePlans(shape, cluster, input)) {
    result.enumerated++;
    if (servePlanProblem(plan, shape, cluster)) {
      result.impossible++;
      continue;
    }
    const estimate = estimateServing(shape, cluster, plan);
    if (!estimate.memory.fits) result.tooLarge++;
    else if (!within(estimate, input)) result.limited++;
    else result.ranked.push({ plan, estimate });
  }
  result.ranked.sort((a, b) => score(a, input.objective) - score(b, input.objective));
  result.front = serveFront(result.ranked);
  return result;
}

const within = (e: ServeEstimate, input: ServeSearchInput): boolean =>
  e.timePerOutputTokenSeconds <= input.mostTokenSeconds &&
  e.split.tokensPerSecondPerDevice >= input.leastTokensPerSecond;

/** Less is better; the other objective tells equal plans apart. */
function score({ estimate: e }: ServeCandidate, objective: ServeObjective): number {
  const [tpot, cost] = [e.timePerOutputTokenSeconds, e.split.dollarsPerMillionTokens];
  return objective === 'tpot' ? tpot * (1 + 1e-9 * cost) : cost * (1 + 1e-9 * tpot);
}

function serveFront(candidates: readonly ServeCandidate[]): ServeCandidate[] {
  const rate = ({ estimate }: ServeCandidate) => estimate.split.tokensPerSecondPerDevice;
  const time = ({ estimate }: ServeCandidate) => estimate.timePerOutputTokenSeconds;
  const sorted = [...candidates].sort((a, b) => time(a) - time(b) || rate(b) - rate(a));
  let most = 0;
  return sorted.filter((one) => {
    if (rate(one) <= most) return false;
    most = rate(one);
    return true;
  });
}
