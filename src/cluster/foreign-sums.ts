import type { FairState } from './fair-state.js';

/** What foreign flows of a link take, at the levels of their bottlenecks: the loops that the engine's time goes into. */
export function foreignSum(state: FairState, link: number): number {
  const { level, foreignBottleneck, foreignWeight, base, foreignCount } = state;
  const begin = base[link]!;
  const end = begin + foreignCount[link]!;
  return foreignWeight
    ? weightedSum(level, foreignBottleneck, foreignWeight, begin, end)
    : plainSum(level, foreignBottleneck, begin, end);
}

function plainSum(level: Float64Array, of: Int32Array, begin: number, end: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let at = begin;
  for (; at + 3 < end; at += 4) {
    a += level[of[at]!]!;
    b += level[of[at + 1]!]!;
    c += level[of[at + 2]!]!;
    d += level[of[at + 3]!]!;
  }
  for (; at < end; at++) a += level[of[at]!]!;
  return a + b + (c + d);
}

function weightedSum(
  level: Float64Array,
  of: Int32Array,
  weight: Float64Array,
  begin: number,
  end: number,
): number {
  let a = 0;
  let b = 0;
  let at = begin;
  for (; at + 1 < end; at += 2) {
    a += weight[at]! * level[of[at]!]!;
    b += weight[at + 1]! * level[of[at + 1]!]!;
  }
  for (; at < end; at++) a += weight[at]! * level[of[at]!]!;
  return a + b;
}
