import type { ExpertLayout } from './layout.js';

/**
 * Who sends which token where. Legend: T tokens of this rank, K choices a token, E experts, N nodes of the group, L ranks of
 * a node, R rows of this rank's experts.
 */

/** What one rank sends: for each node the tokens with an expert there, ascending; one copy each. */
export interface SendPlan {
  /** ids i32 [T, K]. */
  readonly ids: Int32Array;
  /** f32 [T, K]. */
  readonly weights: Float32Array;
  /** Per node i32 [n]. */
  readonly tokens: readonly Int32Array[];
}

/** @param ids i32 [T, K]: expert of each choice @param weights f32 [T, K] */
export function planSending(
  layout: ExpertLayout,
  topK: number,
  ids: Int32Array,
  weights: Float32Array,
): SendPlan {
  const tokens = ids.length / topK;
  const { experts, nodes, perRank, perNode } = layout;
  const nodeOf = Int32Array.from({ length: experts }, (_, e) => Math.floor(e / (perRank * perNode)));
  const lists = Array.from({ length: nodes }, () => new Int32Array(tokens));
  const counts = new Int32Array(nodes);
  for (let t = 0; t < tokens; t++) {
    for (let k = 0; k < topK; k++) {
      const node = nodeOf[ids[t * topK + k]!]!;
      const list = lists[node]!;
      const count = counts[node]!;
      if (count > 0 && list[count - 1] === t) continue;
      list[count] = t;
      counts[node] = count + 1;
    }
  }
  return { ids, weights, tokens: lists.map((list, node) => list.subarray(0, counts[node])) };
}

/** Rows that one rank of the group has sent to this node, and their choices. */
export interface Arrival {
  /** Rows. */
  readonly count: number;
  /** i32 [count, K], all choices of each row, those of other nodes too. */
  readonly ids: Int32Array;
  /** f32 [count, K]. */
  readonly weights: Float32Array;
}

/** What one rank makes of the rows that came to its node. Sources are the ranks of the group, in their order. */
export interface ReceivePlan {
  /** Rows of each expert of this rank, sorted by expert, source and token: i32 [perRank + 1]. */
  readonly offsets: Int32Array;
  /** Per row: its source, its number among that source's rows, and its weight. */
  readonly source: Int32Array;
  readonly row: Int32Array;
  readonly weights: Float32Array;
  /** Partial sums that this rank forms, one for every arrived row with an expert here: rows of partial p, i32 [P+1] and [R]. */
  readonly bounds: Int32Array;
  readonly members: Int32Array;
  /** Choice (0..K−1) and weight of each member. */
  readonly choices: Int32Array;
  readonly memberWeights: Float32Array;
  /** Partials for rows of other ranks than this one's place in their node. */
  readonly forwarded: number;
  /** Number of the first partial of every (rank of the node, source): i32 [L, sources]; and partials of each rank, i32 [L]. */
  readonly firsts: Int32Array;
  readonly partials: Int32Array;
}

/** Rank of the node that has each expert, −1 for experts of other nodes: i32 [E]. */
function ownersOf({ experts, perRank, perNode, index, local }: ExpertLayout): Int32Array {
  const owners = new Int32Array(experts).fill(-1);
  const first = (index - local) * perRank;
  for (let i = 0; i < perNode * perRank; i++) owners[first + i] = Math.floor(i / perRank);
  return owners;
}

/** Scans the rows that came to this node. @param arrivals by source */
export function planReceiving(layout: ExpertLayout, topK: number, arrivals: readonly Arrival[]): ReceivePlan {
  const { perRank, perNode, local, size, index } = layout;
  const owners = ownersOf(layout);
  const mine = index * perRank;
  const partials = new Int32Array(perNode);
  const firsts = new Int32Array(perNode * size);
  const offsets = new Int32Array(perRank + 1);
  const touched = new Int32Array(perNode);
  let serial = 0;
  for (const [source, { count, ids }] of arrivals.entries()) {
    for (let q = 0; q < perNode; q++) firsts[q * size + source] = partials[q]!;
    for (let row = 0; row < count; row++) {
      serial++;
      for (let at = row * topK; at < (row + 1) * topK; at++) {
        const q = owners[ids[at]!]!;
        if (q < 0) continue;
        if (q === local) offsets[ids[at]! - mine + 1]!++;
        if (touched[q] === serial) continue;
        touched[q] = serial;
        partials[q]!++;
      }
    }
  }
  for (let e = 0; e < perRank; e++) offsets[e + 1]! += offsets[e]!;
  return { offsets, firsts, partials, ...collectRows(layout, topK, arrivals, offsets, partials[local]!) };
}

/** Rows of this rank's experts in their places, and the partial sums that they go into. */
function collectRows(
  { perRank, perNode, local, index }: ExpertLayout,
  topK: number,
  arrivals: readonly Arrival[],
  offsets: Int32Array,
  partials: number,
): Omit<ReceivePlan, 'offsets' | 'firsts' | 'partials'> {
  const mine = index * perRank;
  const rows = offsets[perRank]!;
  const next = offsets.slice();
  const source = new Int32Array(rows);
  const row = new Int32Array(rows);
  const members = new Int32Array(rows);
  const choices = new Int32Array(rows);
  const weights = new Float32Array(rows);
  const memberWeights = new Float32Array(rows);
  const bounds = new Int32Array(partials + 1);
  let [partial, member, forwarded] = [0, 0, 0];
  for (const [s, { count, ids, weights: theirs }] of arrivals.entries()) {
    const before = partial;
    for (let r = 0; r < count; r++) {
      const first = member;
      for (let k = 0; k < topK; k++) {
        const expert = ids[r * topK + k]! - mine;
        if (expert < 0 || expert >= perRank) continue;
        const place = next[expert]!++;
        source[place] = s;
        row[place] = r;
        weights[place] = memberWeights[member] = theirs[r * topK + k]!;
        members[member] = place;
        choices[member++] = k;
      }
      if (member > first) bounds[++partial] = member;
    }
    if (s % perNode !== local) forwarded += partial - before;
  }
  return { source, row, weights, bounds, members, choices, memberWeights, forwarded };
}

/** Partial sums that the ranks of this node formed for one source's rows: which, and of which rank. */
export interface Contributions {
  /** i32 [rows + 1]. */
  readonly bounds: Int32Array;
  /** Rank of the node, and number of its partial. */
  readonly rank: Int32Array;
  readonly partial: Int32Array;
}

/** Where the partial sums for the rows of `source` are, in the order of the node's ranks. */
export function findPartials(
  layout: ExpertLayout,
  topK: number,
  { count, ids }: Arrival,
  source: number,
  firsts: Int32Array,
): Contributions {
  const { perNode, size } = layout;
  const owners = ownersOf(layout);
  const next = Int32Array.from({ length: perNode }, (_, q) => firsts[q * size + source]!);
  const bounds = new Int32Array(count + 1);
  const rank = new Int32Array(count * Math.min(topK, perNode));
  const partial = new Int32Array(rank.length);
  const marked = new Int32Array(perNode).fill(-1);
  let at = 0;
  for (let r = 0; r < count; r++) {
    for (let k = 0; k < topK; k++) {
      const q = owners[ids[r * topK + k]!]!;
      if (q >= 0) marked[q] = r;
    }
    for (let q = 0; q < perNode; q++) {
      if (marked[q] !== r) continue;
      rank[at] = q;
      partial[at++] = next[q]!++;
    }
    bounds[r + 1] = at;
  }
  return { bounds, rank: rank.subarray(0, at), partial: partial.subarray(0, at) };
}
