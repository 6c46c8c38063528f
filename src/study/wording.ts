/** How numbers of a study read, on a terminal and on a page alike. */
import { percent } from '../report/units.js';
import type { ClaimReport, MetricReport } from './analysis.js';
import { METRICS, type Metric, type MetricName } from './metrics.js';
import type { Rule } from './schema.js';
import type { Interval } from './student.js';

/** Half-widths below this share of the mean are those of values that do not vary. */
const EXACT = 1e-9;

/** A relative difference: "+0.12 %". */
export const signedPercent = (share: number): string =>
  `${share > 0 ? '+' : share < 0 ? '−' : ''}${percent(Math.abs(share))}`;

/** A mean with what its interval adds: "3.214 ± 0.012", "70.3 kB" where values do not vary. */
export function meanText({ mean, low, high }: Interval, show: (value: number) => string): string {
  if (low === null || high === null || high - mean <= EXACT * Math.abs(mean)) return show(mean);
  return `${show(mean)} ± ${show(high - mean)}`;
}

/** A metric of a variant, and how it differs from the baseline. */
export const valueText = (metric: MetricReport, name: MetricName): string =>
  meanText(metric.mean, METRICS[name].show);

export const differenceText = ({ difference }: MetricReport): string =>
  difference ? meanText(difference, signedPercent).replace('± +', '± ') : '';

/** What a rule asks for: "within ±0.25 % of bf16". */
export function ruleText({ rule, against, metric, variant }: ClaimReport): string {
  return `${METRICS[metric].label} of ${variant} ${conditionText(rule, against ?? '', METRICS[metric])}`;
}

function conditionText(rule: Rule, against: string, { show }: Metric): string {
  switch (rule.kind) {
    case 'within':
      return `within ±${percent(rule.bound)} of ${against}`;
    case 'lower':
    case 'higher':
      return `${rule.kind} than of ${against}${rule.by > 0 ? ` by more than ${percent(rule.by)}` : ''}`;
    case 'range':
      if (rule.low === undefined) return `at most ${show(rule.high!)}`;
      return rule.high === undefined
        ? `at least ${show(rule.low)}`
        : `from ${show(rule.low)} to ${show(rule.high)}`;
  }
}

/** What was measured of a claim: "−0.03 %, 95 % interval −0.11 % to +0.05 %, 3 seeds", or why nothing was. */
export function evidenceText({ interval, obstacle, rule, metric }: ClaimReport, confidence: number): string {
  if (!interval) return obstacle ?? '';
  const show = rule.kind === 'range' ? METRICS[metric].show : signedPercent;
  const { mean, low, high, n } = interval;
  const parts = [show(mean)];
  if (low !== null && high !== null)
    parts.push(`${percent(confidence)} interval ${show(low)} to ${show(high)}`);
  parts.push(`${n} ${n === 1 ? 'seed' : 'seeds'}`);
  return [...parts, ...(obstacle ? [obstacle] : [])].join(', ');
}
