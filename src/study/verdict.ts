/** What a study's numbers say about a claim. */
import type { Rule } from './schema.js';
import type { Interval } from './student.js';

export type Verdict = 'confirmed' | 'refuted' | 'undecided';

/** Where the value of a claim has to lie; `closed` where the ends belong to it. */
interface Region {
  low: number;
  high: number;
  closed: boolean;
}

export function regionOf(rule: Rule): Region {
  const { NEGATIVE_INFINITY: least, POSITIVE_INFINITY: most } = Number;
  switch (rule.kind) {
    case 'within':
      return { low: -rule.bound, high: rule.bound, closed: false };
    case 'lower':
      return { low: least, high: -rule.by, closed: false };
    case 'higher':
      return { low: rule.by, high: most, closed: false };
    case 'range':
      return { low: rule.low ?? least, high: rule.high ?? most, closed: true };
  }
}

/**
 * Confirmed where the whole interval lies in the claim's region, refuted where none of it does, undecided otherwise
 * and where there is no interval.
 */
export function judge(rule: Rule, { low, high }: Interval): Verdict {
  if (low === null || high === null) return 'undecided';
  const region = regionOf(rule);
  const inside = (value: number) =>
    region.closed ? value >= region.low && value <= region.high : value > region.low && value < region.high;
  if (inside(low) && inside(high)) return 'confirmed';
  const apart = region.closed
    ? high < region.low || low > region.high
    : high <= region.low || low >= region.high;
  return apart ? 'refuted' : 'undecided';
}

/** One pair of a comparison, runs of one seed. */
export interface Pair {
  value: number;
  against: number;
}

/** (value − against)/|against| of each pair; pairs that are held against zero have none. */
export const relativeDifferences = (pairs: readonly Pair[]): number[] =>
  pairs
    .filter(({ against }) => against !== 0)
    .map(({ value, against }) => (value - against) / Math.abs(against));
