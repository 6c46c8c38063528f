import type { OpCost, ReadPoint } from '../spec/machine.js';

/**
 * Time of a step as the sum of its operations, each with costs per call, per floating-point operation and per byte that
 * calibration has measured: how the machine at hand, which runs the engine itself, is estimated. What a byte takes to come
 * depends on how much the whole step touches before it comes round again: that is read from a curve of the machine.
 */

/** Calls of one operation with the same key, which names what its cost depends on besides size. */
export interface OpWork {
  key: string;
  calls: number;
  flops: number;
  bytes: number;
  /** Scores of attention that is part of the operation: one for a query, a key and a head, filled up to tiles. */
  pairs: number;
}

export interface OpSample extends OpWork {
  seconds: number;
  /** What errors are relative to in a fit; the sample's own seconds where absent. */
  scale?: number;
}

/** Costs by key. */
export type OpCosts = Readonly<Record<string, OpCost>>;

/** What predictions stand on: costs of operations, and how fast memory of a size is read again and again, by size. */
export interface EngineCosts {
  ops: OpCosts;
  reading: readonly ReadPoint[];
}

/** Bytes a second of what is read again after `bytes` of others: between two points on a line through their logarithms. */
export function readRate(reading: readonly ReadPoint[], bytes: number): number {
  const above = reading.findIndex((point) => point.bytes >= bytes);
  if (above === 0) return reading[0]!.bytesPerSecond;
  const high = reading[above];
  const low = reading.at(above === -1 ? -1 : above - 1)!;
  if (!high) return low.bytesPerSecond;
  const part = Math.log(bytes / low.bytes) / Math.log(high.bytes / low.bytes);
  return low.bytesPerSecond ** (1 - part) * high.bytesPerSecond ** part;
}

/** Seconds more that a byte takes to come than from the nearest cache, where so many are touched before it is used again. */
const secondsPerFarByte = (reading: readonly ReadPoint[], touchedBytes: number): number =>
  1 / readRate(reading, touchedBytes) - 1 / reading[0]!.bytesPerSecond;

/** The operations of one step. */
export interface StepWork<T extends OpWork = OpWork> {
  ops: readonly T[];
  /** Different bytes that they touch, which is what comes between two uses of one by two steps. */
  touchedBytes: number;
}

/** A sample with what its bytes take longer, by the machine's curve, than from the nearest cache: seconds. */
type Read<T extends OpWork> = T & { reading: number };

/**
 * Costs that explain the samples of every key with the least squared error, relative to their scale; none is negative.
 * @param steps samples of each step that was measured
 */
export function fitOps(
  steps: readonly StepWork<OpSample>[],
  reading: readonly ReadPoint[],
): Record<string, OpCost> {
  const byKey = new Map<string, Read<OpSample>[]>();
  for (const { ops, touchedBytes } of steps) {
    for (const sample of ops) {
      const own = { ...sample, reading: sample.bytes * secondsPerFarByte(reading, touchedBytes) };
      byKey.set(sample.key, [...(byKey.get(sample.key) ?? []), own]);
    }
  }
  return Object.fromEntries([...byKey].map(([key, own]) => [key, fitOne(own)]));
}

/** Which of the five costs a trial has: every choice of some. */
const SUBSETS: readonly (readonly number[])[] = Array.from({ length: 31 }, (_, bits) =>
  [0, 1, 2, 3, 4].filter((i) => ((bits + 1) >> i) & 1),
);

/** Fewer costs are preferred unless more explain the samples this much better. */
const SIMPLER = 0.95;

function fitOne(samples: readonly Read<OpSample>[]): OpCost {
  const rows = samples.map((sample) => features(sample).map((x) => x / scaleOf(sample)));
  const wanted = samples.map((sample) => sample.seconds / scaleOf(sample));
  let best = { error: Number.POSITIVE_INFINITY, costs: [0, 0, 0, 0, 0] };
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
    if (error < best.error * SIMPLER) best = { error, costs };
  }
  const [secondsPerCall, secondsPerFlop, secondsPerByte, readings, secondsPerPair] = best.costs as Five;
  return { secondsPerCall, secondsPerFlop, secondsPerByte, readings, secondsPerPair };
}

type Five = [number, number, number, number, number];

const scaleOf = ({ scale, seconds }: OpSample): number => scale ?? seconds;

const features = ({ calls, flops, bytes, reading, pairs }: Read<OpWork>): Five => [
  calls,
  flops,
  bytes,
  reading,
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

export function predictOps(step: StepWork, { ops, reading }: EngineCosts): OpPrediction {
  const perByte = secondsPerFarByte(reading, step.touchedBytes);
  const parts = step.ops.flatMap((one) => {
    const cost = ops[one.key];
    return cost ? [{ key: one.key, seconds: opSeconds({ ...one, reading: one.bytes * perByte }, cost) }] : [];
  });
  return {
    seconds: parts.reduce((sum, part) => sum + part.seconds, 0),
    parts,
    unknown: step.ops.filter(({ key }) => !ops[key]).map(({ key }) => key),
  };
}

function opSeconds(work: Read<OpWork>, cost: OpCost): number {
  const [calls, flops, bytes, reading, pairs] = features(work);
  return (
    calls * cost.secondsPerCall +
    flops * cost.secondsPerFlop +
    bytes * cost.secondsPerByte +
    reading * cost.readings +
    pairs * cost.secondsPerPair
  );
}
