/**
 * Where the experts of a layer lie, by how much each has to do: the hottest more than once, nodes and ranks loaded evenly, in
 * the manner of DeepSeek's load balancer [TR §3.4.1]. Legend: E experts, S = E + R places, of which every rank has as many.
 */

/** i32 [S]: the expert in each place, rank after rank. */
export type Placement = Int32Array;

export interface BalanceProblem {
  /** [E]: rows of each expert. */
  loads: ArrayLike<number>;
  /** S, a multiple of the ranks. */
  places: number;
  ranks: number;
  /**
   * Parts of the machine that experts stay in, with as many ranks each: the nodes, where tokens are limited to some of them, and 1
   * otherwise. Neighbouring experts form `groups` that stay together, as many in each part.
   */
  parts: number;
  groups: number;
}

/** Experts in their order, those that are there twice side by side: nothing is known of loads. */
export const inOrder = (experts: number, places: number): Placement =>
  Int32Array.from({ length: places }, (_, p) => Math.floor((p * experts) / places));

/** Rows of each rank, where the copies of an expert share its rows evenly. */
export function loadsOfRanks(placement: Placement, loads: ArrayLike<number>, ranks: number): Float64Array {
  const copies = copiesOf(placement, loads.length);
  const sums = new Float64Array(ranks);
  const perRank = placement.length / ranks;
  placement.forEach((expert, p) => {
    sums[Math.floor(p / perRank)]! += loads[expert]! / copies[expert]!;
  });
  return sums;
}

/** The largest over the mean; 1 is even, and so is nothing at all. */
export function imbalanceOf(sums: ArrayLike<number>): number {
  const values = Array.from(sums);
  const total = values.reduce((a, b) => a + b, 0);
  return total > 0 ? (Math.max(...values) * values.length) / total : 1;
}

/** Copies of each expert. */
export function copiesOf(placement: Placement, experts: number): Int32Array {
  const copies = new Int32Array(experts);
  for (const expert of placement) copies[expert]!++;
  return copies;
}

/**
 * A placement for these loads: groups onto parts, copies within a part for those whose share is largest, then copies onto its
 * ranks, heavy ones first. Never less even than experts in their order.
 */
export function placeExperts(problem: BalanceProblem): Placement {
  const { loads, places, ranks, parts } = problem;
  const placement = new Int32Array(places);
  const perPart = places / parts;
  expertsOfParts(problem).forEach((experts, part) => {
    const copies = replicate(experts, loads, perPart, ranks / parts);
    placement.set(spread(copies, loads, ranks / parts), part * perPart);
  });
  const plain = inOrder(loads.length, places);
  const even = (of: Placement) => imbalanceOf(loadsOfRanks(of, loads, ranks));
  return even(placement) <= even(plain) ? placement : plain;
}

/** Experts of each part. */
function expertsOfParts({ loads, parts, groups }: BalanceProblem): number[][] {
  const all = Array.from(loads, (_, expert) => expert);
  if (parts === 1) return [all];
  const size = loads.length / groups;
  const weights = Array.from({ length: groups }, (_, g) =>
    all.slice(g * size, (g + 1) * size).reduce((sum, expert) => sum + loads[expert]!, 0),
  );
  const part = pack(weights, parts, all);
  return Array.from({ length: parts }, (_, p) => all.filter((e) => part[Math.floor(e / size)] === p));
}

/** Every expert once, and as long as there are places one more of that whose copies have most to do, on `ranks` at most. */
function replicate(
  experts: readonly number[],
  loads: ArrayLike<number>,
  places: number,
  ranks: number,
): number[] {
  const copies = new Map(experts.map((expert) => [expert, 1]));
  const share = (expert: number) => loads[expert]! / copies.get(expert)!;
  for (let more = places - experts.length; more > 0; more--) {
    const able = experts.filter((expert) => copies.get(expert)! < ranks);
    const from = able.length > 0 ? able : experts;
    const hottest = from.reduce((best, expert) => (share(expert) > share(best) ? expert : best));
    copies.set(hottest, copies.get(hottest)! + 1);
  }
  return experts.flatMap((expert) => Array<number>(copies.get(expert)!).fill(expert));
}

/** Copies → places of `ranks`, as many each. */
function spread(copies: readonly number[], loads: ArrayLike<number>, ranks: number): number[] {
  const number = new Map<number, number>();
  for (const expert of copies) number.set(expert, (number.get(expert) ?? 0) + 1);
  const rank = pack(
    copies.map((expert) => loads[expert]! / number.get(expert)!),
    ranks,
    copies,
  );
  return Array.from({ length: ranks }, (_, r) => copies.filter((_, i) => rank[i] === r)).flat();
}

/**
 * Bin of each weight: as many in every bin, the heaviest first, each into the lightest bin that has room, if there is one
 * that has nothing of its kind.
 */
function pack(weights: readonly number[], bins: number, kinds: readonly number[]): Int32Array {
  const room = weights.length / bins;
  const sums = new Float64Array(bins);
  const kindsIn = Array.from({ length: bins }, () => new Set<number>());
  const counts = new Int32Array(bins);
  const found = new Int32Array(weights.length);
  const heavyFirst = weights.map((_, i) => i).sort((a, b) => weights[b]! - weights[a]! || a - b);
  for (const i of heavyFirst) {
    const open = Array.from(counts, (_, bin) => bin).filter((bin) => counts[bin]! < room);
    const fresh = open.filter((bin) => !kindsIn[bin]!.has(kinds[i]!));
    const bin = (fresh.length > 0 ? fresh : open).reduce((a, b) => (sums[b]! < sums[a]! ? b : a));
    found[i] = bin;
    sums[bin]! += weights[i]!;
    counts[bin]!++;
    kindsIn[bin]!.add(kinds[i]!);
  }
  return found;
}

/**
 * The same placement with parts, ranks of a part and places of a rank numbered so that most experts stay where they are
 * in `before`: which rank has which of its sets does not matter, loading weights does.
 */
export function keepPlaces(next: Placement, before: Placement, ranks: number, parts: number): Placement {
  const ofPart = next.length / parts;
  const perRank = next.length / ranks;
  const cut = (list: Placement, size: number) =>
    Array.from({ length: list.length / size }, (_, i) => [...list.subarray(i * size, (i + 1) * size)]);
  const moved = matched(cut(next, ofPart), cut(before, ofPart)).flatMap((part, p) => {
    const old = before.subarray(p * ofPart, (p + 1) * ofPart);
    const sets = matched(cut(Int32Array.from(part), perRank), cut(old, perRank));
    return sets.flatMap((set, r) => inPlace(set, old.subarray(r * perRank, (r + 1) * perRank)));
  });
  return Int32Array.from(moved);
}

/** `next` in such an order that its lists have most in common with those of `before` in theirs; the best match first. */
function matched(next: number[][], before: number[][]): number[][] {
  const pairs = next.flatMap((list, a) =>
    before.map((old, b) => ({ a, b, common: list.filter((expert) => old.includes(expert)).length })),
  );
  pairs.sort((x, y) => y.common - x.common || x.b - y.b || x.a - y.a);
  const found = new Map<number, number>();
  const taken = new Set<number>();
  for (const { a, b } of pairs) {
    if (found.has(b) || taken.has(a)) continue;
    found.set(b, a);
    taken.add(a);
  }
  return before.map((_, b) => next[found.get(b)!]!);
}

/** One rank's experts, those that it has already in their places. */
function inPlace(set: readonly number[], old: Placement): number[] {
  const rest = [...set];
  const take = (expert: number) => rest.splice(rest.indexOf(expert), 1)[0]!;
  const kept = Array.from(old, (expert) => (rest.includes(expert) ? take(expert) : undefined));
  return kept.map((expert) => expert ?? rest.shift()!);
}
