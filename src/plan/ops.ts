import type { OpCost } from '../spec/machine.js';

/**
 * Time of a step as the sum of its operations, each with costs per call, per floating-point operation and per byte that
 * calibration has measured: how the machine at hand, which runs the engine itself, is estimated.
 */

/** Calls of one operation with the same key, which names what its cost depends on besides size. */
export interface OpWork {
  key: string;
  calls: number;
  flops: number;
  bytes: number;
  /** Scores of attention that is part of the operation: one for a query, a key and a head. */
  pairs: number;
}

export interface OpSample extends OpWork {
  seconds: number;
  /** What errors are relative to in a fit; the sample's own seconds where absent. */
  scale?: number;
}

/** Costs by key. */
export type OpCosts = Readonly<Record<string, OpCost>>;

/** Costs that explain the samples of every key with the least squared error, relative to their scale; none is negative. */
export function fitOps(samples: readonly OpSample[]): OpCosts {
  const byKey = new Map<string, OpSample[]>();
  for (const sample of samples) byKey.set(sample.key, [...(byKey.get(sample.key) ?? []), sample]);
  return Object.fromEntries([...byKey].map(([key, own]) => [key, fitOne(own)]));
}

/** Which of the five costs a trial has: every choice of some. */
const SUBSETS: readonly (readonly number[])[] = Array.from({ length: 31 }, (_, bits) =>
  [0, 1, 2, 3, 4].filter((i) => ((bits + 1) >> i) & 1),
);

/** Bytes of an operation that caches may keep from step to step: trial values, the best is taken. */
const CACHE_BYTES = [1e6, 4e6, 16e6, 64e6] as const;

/** Fewer costs are preferred unless more explain the samples this much better. */
const SIMPLER = 0.95;

function fitOne(samples: readonly OpSample[]): OpCost {
  let best = {
    error: Number.POSITIVE_INFINITY,
    costs: [0, 0, 0, 0, 0],
    cacheBytes: CACHE_BYTES[0] as number,
  };
  for (const cacheBytes of CACHE_BYTES) {
    const rows = samples.map((sample) => features(sample, cacheBytes).map((x) => x / scaleOf(sample)));
    const wanted = samples.map((sample) => sample.seconds / scaleOf(sample));
    for (const subset of SUBSETS) {
      const found = leastSquares(
        rows.map((row) => subset.map((i) => row[i]!)),
        wanted,
      );
      if (!found?.every((cost) => cost >= 0 && Number.isFinite(cost))) continue;
      const costs = [0, 0, 0, 0, 0];
      subset.forEach((i, at) => {
        costs[i] = found[at]!;
      });
      const error = rows.reduce(
        (sum, row, k) => sum + (row.reduce((n, x, i) => n + x * costs[i]!, 0) - wanted[k]!) ** 2,
        0,
      );
      if (error < best.error * SIMPLER) best = { error, costs, cacheBytes };
    }
  }
  const [secondsPerCall, secondsPerFlop, secondsPerByte, secondsPerColdByte, secondsPerPair] =
    best.costs as Five;
  const { cacheBytes } = best;
  return { secondsPerCall, secondsPerFlop, secondsPerByte, secondsPerColdByte, secondsPerPair, cacheBytes };
}

type Five = [number, number, number, number, number];

const scaleOf = ({ scale, seconds }: OpSample): number => scale ?? seconds;

const features = ({ calls, flops, bytes, pairs }: OpWork, cacheBytes: number): Five => [
  calls,
  flops,
  bytes,
  Math.max(0, bytes - cacheBytes),
  pairs,
];

/** x that makes A·x nearest to b; undefined where A does not determine it. */
function leastSquares(a: readonly (readonly number[])[], b: readonly number[]): number[] | undefined {
  const n = a[0]!.length;
  if (a.length < n) return undefined;
  // Columns are scaled to unit length first: bytes and calls differ by many powers of ten.
  const lengths = Array.from({ length: n }, (_, i) => Math.hypot(...a.map((row) => row[i]!)));
  if (lengths.some((length) => length === 0)) return undefined;
  const m = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) =>
      a.reduce((sum, row) => sum + (row[i]! / lengths[i]!) * (row[j]! / lengths[j]!), 0),
    ),
    a.reduce((sum, row, k) => sum + (row[i]! / lengths[i]!) * b[k]!, 0),
  ]);
  return solve(m)?.map((x, i) => x / lengths[i]!);
}

/** Gauss-Jordan with pivots; undefined where the matrix is as good as singular. */
function solve(m: number[][]): number[] | undefined {
  const n = m.length;
  for (let i = 0; i < n; i++) {
    const pivot = m.slice(i).reduce((p, row, k) => (Math.abs(row[i]!) > Math.abs(m[p]![i]!) ? k + i : p), i);
    [m[i], m[pivot]] = [m[pivot]!, m[i]!];
    if (Math.abs(m[i]![i]!) < 1e-9) return undefined;
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const factor = m[k]![i]! / m[i]![i]!;
      m[k] = m[k]!.map((x, j) => x - factor * m[i]![j]!);
    }
  }
  return m.map((row, i) => row[n]! / row[i]!);
}

export interface OpPrediction {
  seconds: number;
  /** By key. */
  parts: { key: string; seconds: number }[];
  /** Keys without costs, which count for nothing. */
  unknown: string[];
}

export function predictOps(work: readonly OpWork[], costs: OpCosts): OpPrediction {
  const parts = work.flatMap((one) => {
    const cost = costs[one.key];
    return cost ? [{ key: one.key, seconds: opSeconds(one, cost) }] : [];
  });
  return {
    seconds: parts.reduce((sum, part) => sum + part.seconds, 0),
    parts,
    unknown: work.filter(({ key }) => !costs[key]).map(({ key }) => key),
  };
}

function opSeconds(work: OpWork, cost: OpCost): number {
  const [calls, flops, bytes, cold, pairs] = features(work, cost.cacheBytes);
  return (
    calls * cost.secondsPerCall +
    flops * cost.secondsPerFlop +
    bytes * cost.secondsPerByte +
    cold * cost.secondsPerColdByte +
    pairs * cost.secondsPerPair
  );
}
