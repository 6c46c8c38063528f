/** Which experts tokens go to: given, or sampled from a gate. Legend: E experts, M nodes. */
import { UserError } from '../errors.js';
import { Random } from '../numerics/random.js';
import type { Traffic } from '../spec/scenario.js';

export type ExpertTraffic = Extract<Traffic, { kind: 'ep-dispatch' | 'ep-combine' }>;

/** Experts of [TR §4.2], where a scenario says nothing. */
export const DEFAULT_EXPERTS = 256;
const DEFAULT_TOKENS = 4096;

/** Choices of tokens, one after the other; the tokens of a rank follow on each other. */
export interface Choices {
  experts: number;
  /** Of all ranks. */
  tokens: number;
  /** Experts of the next token. */
  next: () => readonly number[];
}

/** @throws UserError where experts or tokens do not divide among ranks, or choices name experts that are not there */
export function choicesOf(traffic: ExpertTraffic, ranks: number, perNode: number): Choices {
  const { experts = DEFAULT_EXPERTS, choices, capture } = traffic;
  if (capture) {
    throw new UserError(
      'field workload.capture: captured choices are read from their run by fathom network; pass choices',
    );
  }
  if (experts % ranks !== 0 || ranks % perNode !== 0) {
    const below = experts - (experts % ranks);
    throw new UserError(
      `field workload.experts: ${experts} experts do not divide among ${ranks} ranks on nodes of ${perNode}; the nearest are ${below || ranks} and ${below + ranks}`,
    );
  }
  if (!choices) {
    const tokens = (traffic.tokens ?? DEFAULT_TOKENS) * ranks;
    return { experts, tokens, next: sampler(traffic, experts, ranks / perNode) };
  }
  const tokens = traffic.tokens === undefined ? choices.length : traffic.tokens * ranks;
  return { experts, tokens, next: inTurn(choices, experts) };
}

function inTurn(choices: readonly (readonly number[])[], experts: number): () => readonly number[] {
  const wrong = choices.findIndex((row) => row.some((expert) => expert >= experts));
  if (wrong >= 0) {
    throw new UserError(
      `field workload.choices.${wrong}: ${choices[wrong]!.join(', ')} names an expert of which there are ${experts}, numbered from 0`,
    );
  }
  let at = 0;
  return () => choices[at++ % choices.length]!;
}

/** Top experts by random scores within the best nodes, whose score is the sum of their two best [TR §2.1.2]. */
function sampler(traffic: ExpertTraffic, experts: number, nodes: number): () => readonly number[] {
  const { topK, nodeLimit, skew, seed } = traffic;
  const limit = Math.min(nodeLimit ?? nodes, nodes);
  const most = (experts / nodes) * limit;
  if (topK > most) {
    throw new UserError(
      `field workload.topK: ${topK} experts of ${experts} on at most ${limit} of ${nodes} nodes cannot be chosen; give ${most} or fewer`,
    );
  }
  const random = new Random(seed);
  const popularity = Array.from({ length: experts }, () => (skew === 0 ? 0 : skew * random.normal()));
  const scores = new Float64Array(experts);
  const perNode = experts / nodes;
  return () => {
    for (let e = 0; e < experts; e++) scores[e] = score(random.nextUint32(), popularity[e]!);
    const open = limit < nodes ? bestNodes(scores, nodes, perNode, limit) : undefined;
    return topOf(scores, topK, (expert) => !open || open.has(Math.floor(expert / perNode)));
  };
}

/**
 * Equally popular experts get uniform scores; otherwise Gumbel noise on the logarithm of popularity, by which the top k are
 * drawn without putting back.
 */
const score = (bits: number, popularity: number): number =>
  popularity === 0 ? bits : popularity - Math.log(-Math.log((bits + 0.5) / 0x100000000));

function bestNodes(scores: Float64Array, nodes: number, perNode: number, limit: number): Set<number> {
  const sums = Array.from({ length: nodes }, (_, node) => {
    let [first, second] = [-Infinity, -Infinity];
    for (let e = node * perNode; e < (node + 1) * perNode; e++) {
      const score = scores[e]!;
      if (score > first) [first, second] = [score, first];
      else if (score > second) second = score;
    }
    return { node, sum: perNode > 1 ? first + second : first };
  });
  sums.sort((a, b) => b.sum - a.sum);
  return new Set(sums.slice(0, limit).map(({ node }) => node));
}

function topOf(scores: Float64Array, k: number, isOpen: (expert: number) => boolean): number[] {
  const best: number[] = [];
  for (let e = 0; e < scores.length; e++) {
    if (!isOpen(e)) continue;
    if (best.length === k && scores[e]! <= scores[best[k - 1]!]!) continue;
    if (best.length === k) best.pop();
    let place = best.length;
    while (place > 0 && scores[best[place - 1]!]! < scores[e]!) place--;
    best.splice(place, 0, e);
  }
  return best;
}
