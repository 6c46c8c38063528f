/** Dispatch and combine of expert parallelism, from which token goes to which expert. */
import { UserError } from '../errors.js';
import { parseScheme } from '../numerics/schemes.js';
import { ranksOf } from './collectives.js';
import { type Choices, choicesOf, type ExpertTraffic } from './gate.js';
import type { Places, Transfer, TreePart, Workload } from './transfers.js';

/** Tokens that pass between ranks, as counted from choices. Legend: R ranks, M nodes. */
export interface ExpertCounts {
  /** [R, M] tokens of a rank with an expert on a node. */
  toNode: Float64Array;
  /** [R, R] tokens of a rank with an expert on another. */
  toRank: Float64Array;
  /** [R] tokens of a rank by the set of other nodes that they go to. */
  sets: Map<string, { nodes: number[]; tokens: number }>[];
  /** Choices that fell on each expert, over the mean; the largest. */
  imbalance: number;
}

/** Hidden size of DeepSeek-V3, where a scenario says nothing. */
const DEFAULT_HIDDEN = 7168;

/**
 * DeepEP's way [ISCA §4.3]: a token crosses once to each node that has an expert of its, to the GPU of the sender's rail
 * there, which passes it on over NVLink to those that have; both legs run at once. Combine is the way back.
 */
export function expertTraffic(traffic: ExpertTraffic, places: Places): Workload {
  const ranks = ranksOf(traffic, places);
  const perNode = Math.min(places.gpusPerNode, ranks.length);
  const choices = choicesOf(traffic, ranks.length, perNode);
  const counts = countTokens(choices, ranks.length, perNode);
  const tokenBytes = tokenBytesOf(traffic);
  const legs = legsOf(traffic, counts, ranks, perNode, tokenBytes);
  // Bytes as DeepEP's test counts them: a token once per node that it goes to, its own included.
  const nodeTokens = counts.toNode.reduce((sum, n) => sum + n, 0) / ranks.length;
  return {
    name: `${traffic.kind} over ${ranks.length}, ${Math.round(choices.tokens / ranks.length)} tokens a rank`,
    transfers: merge(legs, places.endpoints),
    ranks: ranks.length,
    bytesPerRank: nodeTokens * tokenBytes,
    busFactor: 1,
  };
}

/** Bytes of a token on the wire, scales included. @throws UserError for a format of no name */
export function tokenBytesOf({ kind, format, hidden = DEFAULT_HIDDEN }: ExpertTraffic): number {
  const name = format ?? (kind === 'ep-dispatch' ? 'e4m3' : 'bf16');
  try {
    return parseScheme(name).bits(1, hidden) / 8;
  } catch (error) {
    throw new UserError(`field workload.format: ${(error as Error).message}`);
  }
}

/** Over the fabric to the sender's rail on each node, and on within nodes; for combine the other way round. */
function legsOf(
  traffic: ExpertTraffic,
  counts: ExpertCounts,
  ranks: readonly number[],
  perNode: number,
  tokenBytes: number,
): Transfer[] {
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
    const landing = (node: number) => node * perNode + (rank % perNode);
    for (let node = 0; node < nodes; node++) {
      if (node !== home && !traffic.inFabric) {
        send(rank, landing(node), counts.toNode[rank * nodes + node]!);
      }
      for (let g = 0; g < perNode; g++) {
        const target = node * perNode + g;
        const tokens = counts.toRank[rank * ranks.length + target]!;
        send(node === home ? rank : landing(node), target, tokens);
      }
    }
    if (!traffic.inFabric || counts.sets[rank]!.size === 0) continue;
    const parts = [...counts.sets[rank]!.values()].map(({ nodes: set, tokens }) => ({
      ends: set.map((node) => ranks[landing(node)]!),
      bytes: tokens * tokenBytes,
    }));
    transfers.push(treeOf(ranks[rank]!, parts, combine));
  }
  return transfers;
}

/** What one rank sends to several nodes, copied in switches, or gets from them, summed there. */
function treeOf(root: number, parts: TreePart[], combine: boolean): Transfer {
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  const end = parts[0]!.ends[0]!;
  return {
    from: combine ? end : root,
    to: combine ? root : end,
    bytes,
    tree: { kind: combine ? 'reduce' : 'multicast', parts },
  };
}

/** Transfers between the same two endpoints as one. */
function merge(transfers: readonly Transfer[], endpoints: number): Transfer[] {
  const sums = new Map<number, Transfer>();
  const trees: Transfer[] = [];
  for (const transfer of transfers) {
    if (transfer.tree) {
      trees.push(transfer);
      continue;
    }
    const key = transfer.from * endpoints + transfer.to;
    const known = sums.get(key);
    if (known) known.bytes += transfer.bytes;
    else sums.set(key, { ...transfer });
  }
  return [...sums.values(), ...trees];
}

/** Counts tokens between ranks; each rank has as many, one after the other. */
export function countTokens(choices: Choices, ranks: number, perNode: number): ExpertCounts {
  const { experts, tokens, next } = choices;
  const nodes = ranks / perNode;
  const counts: ExpertCounts = {
    toNode: new Float64Array(ranks * nodes),
    toRank: new Float64Array(ranks * ranks),
    sets: Array.from({ length: ranks }, () => new Map()),
    imbalance: 0,
  };
  const load = new Float64Array(experts);
  for (let token = 0; token < tokens; token++) {
    const chosen = next();
    for (const expert of chosen) load[expert]!++;
    const targets = new Set(chosen.map((expert) => Math.floor((expert * ranks) / experts)));
    countToken(counts, Math.floor((token * ranks) / tokens), targets, perNode, ranks);
  }
  counts.imbalance = (Math.max(...load) * experts) / load.reduce((sum, n) => sum + n, 0);
  return counts;
}

function countToken(
  { toRank, toNode, sets }: ExpertCounts,
  rank: number,
  targets: ReadonlySet<number>,
  perNode: number,
  ranks: number,
): void {
  const nodes = new Set<number>();
  for (const target of targets) {
    toRank[rank * ranks + target]!++;
    nodes.add(Math.floor(target / perNode));
  }
  for (const node of nodes) toNode[(rank * ranks) / perNode + node]!++;
  nodes.delete(Math.floor(rank / perNode));
  if (nodes.size === 0) return;
  const others = [...nodes].sort((a, b) => a - b);
  const known = sets[rank]!.get(others.join());
  if (known) known.tokens++;
  else sets[rank]!.set(others.join(), { nodes: others, tokens: 1 });
}
