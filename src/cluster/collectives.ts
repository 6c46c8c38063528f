/** Collectives as transfers between ranks. Legend: N ranks, S bytes of a rank's whole buffer, as benchmarks print it. */
import { UserError } from '../errors.js';
import { Random } from '../numerics/random.js';
import type { Traffic } from '../spec/scenario.js';
import type { Places, Transfer, Workload } from './transfers.js';

type Of<Kind extends Traffic['kind']> = Extract<Traffic, { kind: Kind }>;

/** More transfers than this are refused rather than run for hours. */
const MOST_TRANSFERS = 20e6;

/** The endpoints that take part. @throws UserError where they are not there */
export function ranksOf(
  { ranks, first, stride }: { ranks?: number | undefined; first: number; stride: number },
  places: Places,
): number[] {
  const count = ranks ?? Math.floor((places.endpoints - first + stride - 1) / stride);
  const last = first + (count - 1) * stride;
  if (last >= places.endpoints || count < 2) {
    throw new UserError(
      `field workload.ranks: ${count} ranks from ${first} in steps of ${stride} end at endpoint ${last}, and the last is ${places.endpoints - 1}; give ${Math.max(2, Math.floor((places.endpoints - 1 - first) / stride) + 1)} or fewer`,
    );
  }
  return Array.from({ length: count }, (_, i) => first + i * stride);
}

/** Every rank sends S/N to every other. With PXN, what one node sends to a GPU goes together, as in NCCL. */
export function allToAll(traffic: Of<'all-to-all'>, places: Places): Workload {
  const ranks = ranksOf(traffic, places);
  guard(ranks.length ** 2);
  const random = new Random(traffic.seed);
  const each = traffic.bytes / ranks.length;
  const size = () => (traffic.spread === 0 ? each : each * (1 + traffic.spread * (2 * random.uniform() - 1)));
  const bundles = places.pxn && places.gpusPerNode > 1;
  const transfers = bundles ? bundledPairs(ranks, places, size) : pairs(ranks, size);
  return {
    name: `all-to-all over ${ranks.length}`,
    transfers,
    ranks: ranks.length,
    bytesPerRank: traffic.bytes,
    busFactor: (ranks.length - 1) / ranks.length,
  };
}

function pairs(ranks: readonly number[], size: () => number): Transfer[] {
  const transfers: Transfer[] = [];
  for (const from of ranks)
    for (const to of ranks) if (from !== to) transfers.push({ from, to, bytes: size() });
  return transfers;
}

/**
 * Messages to a GPU of another node go over NVLink to the sender's colleague on that GPU's rail, and from there in one
 * transfer for all senders of the node; both legs run at once, as in a pipeline of small chunks, the second behind the first chunk.
 */
function bundledPairs(ranks: readonly number[], places: Places, size: () => number): Transfer[] {
  const node = (rank: number) => Math.floor(rank / places.gpusPerNode);
  const colleagues = new Map<number, number[]>();
  for (const rank of ranks) colleagues.set(node(rank), [...(colleagues.get(node(rank)) ?? []), rank]);
  const sums = new Map<number, number>();
  const relayed = new Set<number>();
  const send = (from: number, to: number, bytes: number) => {
    if (from !== to)
      sums.set(from * places.endpoints + to, (sums.get(from * places.endpoints + to) ?? 0) + bytes);
  };
  for (const from of ranks) {
    for (const to of ranks) {
      if (from === to) continue;
      const bytes = size();
      const helper =
        node(from) === node(to)
          ? undefined
          : colleagues.get(node(from))!.find((other) => places.railOf(other) === places.railOf(to));
      if (helper === undefined) send(from, to, bytes);
      else {
        send(from, helper, bytes);
        send(helper, to, bytes);
        if (from !== helper) relayed.add(helper * places.endpoints + to);
      }
    }
  }
  return [...sums].map(([pair, bytes]) => ({
    from: Math.floor(pair / places.endpoints),
    to: pair % places.endpoints,
    bytes,
    start: relayed.has(pair) ? places.relaySeconds : 0,
  }));
}

/** All-gather, reduce-scatter and all-reduce. */
export function collective(
  traffic: Of<'all-gather' | 'reduce-scatter' | 'all-reduce'>,
  places: Places,
): Workload {
  const ranks = ranksOf(traffic, places);
  const { kind, bytes, algorithm } = traffic;
  if (algorithm !== 'ring' && kind !== 'all-reduce') {
    throw new UserError(`field workload.algorithm: ${kind} goes in a ring; "${algorithm}" is for all-reduce`);
  }
  const groups = groupsOf(ranks, traffic.groupSize ?? ranks.length, traffic.groupStride);
  const size = groups[0]!.length;
  const passes = kind === 'all-reduce' ? 2 : 1;
  guard(ranks.length * (size - 1) * passes);
  const transfers: Transfer[] = [];
  for (const group of groups) {
    if (algorithm === 'tree') tree(transfers, group, bytes);
    else if (algorithm === 'hierarchical') hierarchical(transfers, group, bytes, places.gpusPerNode);
    else ring(transfers, group, bytes / size, passes * (size - 1), []);
  }
  return {
    name: `${kind} (${algorithm}) over ${groups.length > 1 ? `${groups.length} groups of ` : ''}${size}`,
    transfers,
    ranks: ranks.length,
    bytesPerRank: bytes,
    busFactor: (passes * (size - 1)) / size,
  };
}

/** Ranks i, i + stride, ... of each block of size·stride. */
function groupsOf(ranks: readonly number[], size: number, stride: number): number[][] {
  if (ranks.length % (size * stride) !== 0) {
    throw new UserError(
      `field workload.groupSize: groups of ${size} in steps of ${stride} do not fill ${ranks.length} ranks; their product must divide it`,
    );
  }
  return Array.from({ length: ranks.length / size }, (_, g) => {
    const begin = Math.floor(g / stride) * size * stride + (g % stride);
    return Array.from({ length: size }, (_, k) => ranks[begin + k * stride]!);
  });
}

/**
 * `steps` steps round a ring: at each, every rank sends the chunk that it has just got to its neighbour.
 * @param after what the first step waits for, for each rank (none, or as many as ranks)
 * @returns numbers of the last step's transfers, by sender
 */
function ring(
  transfers: Transfer[],
  ranks: readonly number[],
  chunk: number,
  steps: number,
  after: readonly (readonly number[])[],
): number[] {
  const n = ranks.length;
  let last: number[] = [];
  for (let step = 0; step < steps; step++) {
    last = ranks.map((from, i) => {
      const before = step === 0 ? (after[i] ?? []) : [last[(i + n - 1) % n]!];
      return transfers.push({ from, to: ranks[(i + 1) % n]!, bytes: chunk, after: before }) - 1;
    });
  }
  return last;
}

/** Up a binomial tree and down again, whole buffers: 2·log2(N) steps, as a rank sends to one other at a time. */
function tree(transfers: Transfer[], ranks: readonly number[], bytes: number): void {
  const n = ranks.length;
  /** Transfers after which each rank may send. */
  const ready: number[][] = ranks.map(() => []);
  const strides: number[] = [];
  for (let stride = 1; stride < n; stride *= 2) strides.push(stride);
  const send = (i: number, j: number) =>
    transfers.push({ from: ranks[i]!, to: ranks[j]!, bytes, after: [...ready[i]!] }) - 1;
  for (const stride of strides) {
    for (let i = stride; i < n; i += 2 * stride) ready[i - stride]!.push(send(i, i - stride));
  }
  for (const stride of strides.reverse()) {
    for (let i = stride; i < n; i += 2 * stride) {
      const sent = send(i - stride, i);
      ready[i] = [sent];
      ready[i - stride] = [sent];
    }
  }
}

/** Reduce-scatter within nodes, all-reduce of each part across nodes, all-gather within nodes; all in rings. */
function hierarchical(transfers: Transfer[], ranks: readonly number[], bytes: number, perNode: number): void {
  const nodes = new Map<number, number[]>();
  for (const rank of ranks) {
    const node = Math.floor(rank / perNode);
    nodes.set(node, [...(nodes.get(node) ?? []), rank]);
  }
  const members = [...nodes.values()];
  const local = members[0]!.length;
  if (members.some(({ length }) => length !== local)) {
    throw new UserError('field workload.ranks: a hierarchical all-reduce needs as many ranks on every node');
  }
  const scattered = members.map((own) => ring(transfers, own, bytes / local, local - 1, []));
  const reduced = members.map(() => new Array<number>(local));
  for (let i = 0; i < local; i++) {
    const across = members.map((own) => own[i]!);
    // The rank before i in its node has sent it the last part.
    const after = scattered.map((sent) => (sent.length ? [sent[(i + local - 1) % local]!] : []));
    const last = ring(transfers, across, bytes / local / across.length, 2 * (across.length - 1), after);
    for (let m = 0; m < across.length; m++) {
      reduced[m]![i] = last[(m + across.length - 1) % across.length] ?? after[m]![0]!;
    }
  }
  for (const [m, own] of members.entries()) {
    const after = reduced[m]!.map((transfer) => (transfer === undefined ? [] : [transfer]));
    ring(transfers, own, bytes / local, local - 1, after);
  }
}

/** Many to one. */
export function incast({ bytes, sources, first }: Of<'incast'>, places: Places): Workload {
  const ranks = ranksOf({ ranks: sources + 1, first, stride: 1 }, places);
  const [to, ...senders] = ranks;
  return {
    name: `incast of ${sources}`,
    transfers: senders.map((from) => ({ from, to: to!, bytes })),
    ranks: sources,
    bytesPerRank: bytes,
    busFactor: 1,
  };
}

/** One to one at random, nobody to itself. */
export function permutation(traffic: Of<'permutation'>, places: Places): Workload {
  const ranks = ranksOf(traffic, places);
  const random = new Random(traffic.seed);
  // Sattolo's algorithm: one cycle through all, so that none keeps its place.
  const to = [...ranks];
  for (let i = to.length - 1; i > 0; i--) {
    const j = random.below(i);
    [to[i], to[j]] = [to[j]!, to[i]!];
  }
  return {
    name: `permutation of ${ranks.length}`,
    transfers: ranks.map((from, i) => ({ from, to: to[i]!, bytes: traffic.bytes })),
    ranks: ranks.length,
    bytesPerRank: traffic.bytes,
    busFactor: 1,
  };
}

/** Stage after stage, micro-batch after micro-batch. */
export function pipeline(traffic: Of<'pipeline'>, places: Places): Workload {
  const ranks = ranksOf(traffic, places);
  const { microBatches, bytes, stageSeconds } = traffic;
  guard(microBatches * ranks.length);
  const transfers: Transfer[] = [];
  const stages = ranks.length - 1;
  for (let m = 0; m < microBatches; m++) {
    for (let s = 0; s < stages; s++) {
      const after = [...(s > 0 ? [m * stages + s - 1] : []), ...(m > 0 ? [(m - 1) * stages + s] : [])];
      transfers.push({ from: ranks[s]!, to: ranks[s + 1]!, bytes, start: stageSeconds, after });
    }
  }
  return {
    name: `pipeline of ${ranks.length} stages, ${microBatches} micro-batches`,
    transfers,
    ranks: stages,
    bytesPerRank: bytes * microBatches,
    busFactor: 1,
  };
}

function guard(transfers: number): void {
  if (transfers <= MOST_TRANSFERS) return;
  throw new UserError(
    `field workload.ranks: ${transfers.toExponential(1)} transfers are more than the ${MOST_TRANSFERS.toExponential(0)} that are run one by one; give fewer ranks, or --fold for a uniform all-to-all`,
  );
}
