/** Dispatch and combine of expert parallelism, from which token goes to which expert. */
import { UserError } from '../errors.js';
import { Random } from '../numerics/random.js';
import type { Traffic } from '../spec/scenario.js';
import { ranksOf } from './collectives.js';
import type { Places, Transfer, Workload } from './transfers.js';

type ExpertTraffic = Extract<Traffic, { kind: 'ep-dispatch' | 'ep-combine' }>;

/** Tokens that pass between ranks, as counted from choices. Legend: R ranks, M nodes. */
export interface ExpertCounts {
  /** [R, M] tokens of a rank with an expert on a node. */
  toNode: Float64Array;
  /** [R, R] tokens of a rank with an expert on another. */
  toRank: Float64Array;
  /** [R] tokens with an expert on any other node. */
  abroad: Float64Array;
  /** Choices that fell on each expert, over the mean; the largest. */
  imbalance: number;
}

/**
 * DeepEP's way [ISCA §4.3]: a token crosses once to each node that has an expert of its, to the GPU of the sender's rail
 * there, which passes it on over NVLink to those that have; both legs run at once. Combine is the way back.
 */
export function expertTraffic(traffic: ExpertTraffic, places: Places): Workload {
  const ranks = ranksOf(traffic, places);
  const perNode = Math.min(places.gpusPerNode, ranks.length);
  const counts = countTokens(traffic, ranks.length, perNode);
  const tokenBytes = traffic.hidden * traffic.bytesPerValue;
  const combine = traffic.kind === 'ep-combine';
  const transfers: Transfer[] = [];
  const send = (from: number, to: number, tokens: number) => {
    if (tokens === 0 || from === to) return;
    const [a, b] = combine ? [to, from] : [from, to];
    transfers.push({ from: ranks[a]!, to: ranks[b]!, bytes: tokens * tokenBytes });
  };
  const nodes = ranks.length / perNode;
  for (let rank = 0; rank < ranks.length; rank++) {
    const home = Math.floor(rank / perNode);
    for (let node = 0; node < nodes; node++) {
      const landing = node * perNode + (rank % perNode);
      if (node !== home)
        send(rank, landing, counts.toNode[rank * nodes + node]! * share(traffic, counts, rank, nodes, home));
      for (let g = 0; g < perNode; g++) {
        const target = node * perNode + g;
        send(node === home ? rank : landing, target, counts.toRank[rank * ranks.length + target]!);
      }
    }
  }
  // Bytes as DeepEP's test counts them: a token once per node that it goes to, its own included.
  const nodeTokens = counts.toNode.reduce((sum, n) => sum + n, 0) / ranks.length;
  return {
    name: `${traffic.kind} over ${ranks.length}, ${traffic.tokens} tokens a rank`,
    transfers: merge(transfers, places.endpoints),
    ranks: ranks.length,
    bytesPerRank: nodeTokens * tokenBytes,
    busFactor: 1,
  };
}

/** With copies made in the fabric, a sender sends a token once however many nodes it goes to [ISCA §6.5]. */
function share(
  { inFabric }: ExpertTraffic,
  { toNode, abroad }: ExpertCounts,
  rank: number,
  nodes: number,
  home: number,
): number {
  if (!inFabric) return 1;
  let sum = 0;
  for (let node = 0; node < nodes; node++) if (node !== home) sum += toNode[rank * nodes + node]!;
  return sum === 0 ? 1 : abroad[rank]! / sum;
}

/** Transfers between the same two endpoints as one. */
function merge(transfers: readonly Transfer[], endpoints: number): Transfer[] {
  const sums = new Map<number, Transfer>();
  for (const transfer of transfers) {
    const key = transfer.from * endpoints + transfer.to;
    const known = sums.get(key);
    if (known) known.bytes += transfer.bytes;
    else sums.set(key, { ...transfer });
  }
  return [...sums.values()];
}

/** Counts tokens between ranks, sampled or from `choices`. @throws UserError where experts do not divide among ranks */
export function countTokens(traffic: ExpertTraffic, ranks: number, perNode: number): ExpertCounts {
  const { experts, tokens, choices } = traffic;
  if (experts % ranks !== 0 || ranks % perNode !== 0) {
    throw new UserError(
      `field workload.experts: ${experts} experts do not divide among ${ranks} ranks on nodes of ${perNode}; give a multiple of ${ranks}`,
    );
  }
  const nodes = ranks / perNode;
  const counts: ExpertCounts = {
    toNode: new Float64Array(ranks * nodes),
    toRank: new Float64Array(ranks * ranks),
    abroad: new Float64Array(ranks),
    imbalance: 0,
  };
  const load = new Float64Array(experts);
  const gate = choices ? givenChoices(choices, experts) : sampler(traffic, nodes);
  const total = choices ? choices.length : tokens * ranks;
  for (let token = 0; token < total; token++) {
    const rank = Math.floor((token * ranks) / total);
    countToken(counts, gate(token), rank, experts / ranks, perNode, ranks, load);
  }
  counts.imbalance = (Math.max(...load) * experts) / load.reduce((sum, n) => sum + n, 0);
  return counts;
}

function countToken(
  counts: ExpertCounts,
  chosen: readonly number[],
  rank: number,
  perRank: number,
  perNode: number,
  ranks: number,
  load: Float64Array,
): void {
  const nodes = ranks / perNode;
  const targets = new Set<number>();
  const targetNodes = new Set<number>();
  for (const expert of chosen) {
    load[expert]!++;
    const target = Math.floor(expert / perRank);
    targets.add(target);
    targetNodes.add(Math.floor(target / perNode));
  }
  for (const target of targets) counts.toRank[rank * ranks + target]!++;
  for (const node of targetNodes) counts.toNode[rank * nodes + node]!++;
  targetNodes.delete(Math.floor(rank / perNode));
  if (targetNodes.size > 0) counts.abroad[rank]!++;
}

function givenChoices(
  choices: readonly (readonly number[])[],
  experts: number,
): (token: number) => readonly number[] {
  const wrong = choices.findIndex((row) => row.some((expert) => expert >= experts));
  if (wrong >= 0) {
    throw new UserError(
      `field workload.choices.${wrong}: ${choices[wrong]!.join(', ')} names an expert of which there are ${experts}`,
    );
  }
  return (token) => choices[token]!;
}

/** Top experts by random scores within the best nodes, whose score is the sum of their two best [TR §2.1.2]. */
function sampler(traffic: ExpertTraffic, nodes: number): () => readonly number[] {
  const { experts, topK, nodeLimit, skew, seed } = traffic;
  if (topK > experts) {
    throw new UserError(`field workload.topK: ${topK} experts of ${experts} cannot be chosen`);
  }
  const random = new Random(seed);
  const perNode = experts / nodes;
  const popularity = Array.from({ length: experts }, () => (skew === 0 ? 0 : skew * random.normal()));
  const scores = new Float64Array(experts);
  const limit = Math.min(nodeLimit ?? nodes, nodes);
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
