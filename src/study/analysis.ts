/** From the records of a study to its report; the same records give the same report. */
import type { BandPoint } from '../report/lines.js';
import type { Machine } from './machine.js';
import { METRICS, type MetricName } from './metrics.js';
import type { ResultsFolder, RunKey, RunRecord } from './results.js';
import type { Claim, Study, StudyVariant } from './schema.js';
import { type Interval, meanInterval } from './student.js';
import { judge, type Pair, relativeDifferences, type Verdict } from './verdict.js';

/** A metric of a variant. */
export interface MetricReport {
  values: { seed: number; value: number }[];
  mean: Interval;
  /** Relative difference to the baseline, paired by seed; null for the baseline itself. */
  difference: Interval | null;
}

export interface VariantReport {
  name: string;
  title: string;
  /** Those that some run of the variant tells. */
  metrics: Partial<Record<MetricName, MetricReport>>;
  /** Validation loss by step: mean, lowest and highest over the seeds. */
  curve: BandPoint[];
  /** The same of the relative difference to the baseline, paired by seed. */
  difference: BandPoint[];
}

export interface ClaimReport extends Claim {
  verdict: Verdict;
  /** Of the relative difference, or of the metric where the rule is a range; null where there is nothing to judge. */
  interval: Interval | null;
  /** Why it could not be judged, where that is so. */
  obstacle: string | null;
}

/** All that a study tells. */
export interface StudyReport {
  study: Study;
  digest: string;
  baseline: string;
  runs: { expected: number; complete: number; failed: (RunKey & { error: string })[] };
  claims: ClaimReport[];
  variants: VariantReport[];
  /** What the runs were made on; several where the folder went from one machine to another. */
  machines: (Machine & { threads: number })[];
  /** When the last run ended, ISO 8601; null where there is none. */
  finished: string | null;
}

export function analyse({
  study,
  digest,
  records,
}: Pick<ResultsFolder, 'study' | 'digest'> & { records: readonly RunRecord[] }): StudyReport {
  const table = new Table(records);
  const baseline = study.baseline ?? study.variants[0]!.name;
  const finished = records.map((record) => record.finished).sort();
  return {
    study,
    digest,
    baseline,
    runs: {
      expected: study.variants.length * study.seeds.length,
      complete: table.complete.length,
      failed: table.failed.map(({ variant, seed, error }) => ({ variant, seed, error: error! })),
    },
    claims: study.claims.map((claim) => judgeClaim(claim, table, study.confidence)),
    variants: study.variants.map((variant) => reportVariant(variant, baseline, table, study)),
    machines: distinct(records.map(({ machine, threads }) => ({ ...machine, threads }))),
    finished: finished.at(-1) ?? null,
  };
}

/** Records by variant and seed. */
class Table {
  readonly complete: RunRecord[];
  readonly failed: RunRecord[];

  constructor(records: readonly RunRecord[]) {
    this.complete = records.filter(({ error }) => error === undefined);
    this.failed = records.filter(({ error }) => error !== undefined);
  }

  of(variant: string): RunRecord[] {
    return this.complete.filter((record) => record.variant === variant);
  }

  /** Runs of one seed of two variants. */
  pairs(variant: string, against: string): { run: RunRecord; other: RunRecord }[] {
    const others = this.of(against);
    return this.of(variant).flatMap((run) => {
      const other = others.find(({ seed }) => seed === run.seed);
      return other ? [{ run, other }] : [];
    });
  }

  /** Relative differences of a metric between two variants. */
  differences(variant: string, against: string, metric: MetricName): number[] {
    const pairs = this.pairs(variant, against).flatMap(({ run, other }): Pair[] => {
      const [value, reference] = [run.metrics[metric], other.metrics[metric]];
      return value === undefined || reference === undefined ? [] : [{ value, against: reference }];
    });
    return relativeDifferences(pairs);
  }

  values(variant: string, metric: MetricName): { seed: number; value: number }[] {
    return this.of(variant).flatMap(({ seed, metrics }) =>
      metrics[metric] === undefined ? [] : [{ seed, value: metrics[metric] }],
    );
  }
}

function judgeClaim(claim: Claim, table: Table, confidence: number): ClaimReport {
  const { variant, against, metric, rule } = claim;
  const values =
    against === undefined
      ? table.values(variant, metric).map(({ value }) => value)
      : table.differences(variant, against, metric);
  const obstacle = findObstacle(claim, table, values.length);
  const interval = values.length > 0 ? meanInterval(values, confidence) : null;
  return {
    ...claim,
    verdict: obstacle || !interval ? 'undecided' : judge(rule, interval),
    interval,
    obstacle,
  };
}

/** A run that failed cannot be left out silently: those that are left may be the lucky ones. */
function findObstacle({ variant, against, metric }: Claim, table: Table, values: number): string | null {
  const names = [variant, ...(against === undefined ? [] : [against])];
  const failed = table.failed.find((record) => names.includes(record.variant));
  if (failed) return `run ${failed.variant}, seed ${failed.seed} failed`;
  const missing = names.find((name) => table.of(name).length === 0);
  if (missing) return `there are no runs of ${missing} yet`;
  if (values === 0) return `the runs do not tell ${METRICS[metric].label}`;
  return values < 2 ? 'an interval takes at least two seeds' : null;
}

function reportVariant(
  { name, title }: StudyVariant,
  baseline: string,
  table: Table,
  study: Study,
): VariantReport {
  const wanted = [
    ...study.metrics,
    ...study.claims.map(({ metric }) => metric),
    ...Object.values(study.tradeoff ?? {}),
  ];
  const metrics = [...new Set(wanted)].flatMap((metric) => {
    const values = table.values(name, metric);
    if (values.length === 0) return [];
    const interval = (list: readonly number[]) =>
      list.length > 0 ? meanInterval(list, study.confidence) : null;
    const difference = name === baseline ? null : interval(table.differences(name, baseline, metric));
    return [[metric, { values, mean: interval(values.map(({ value }) => value))!, difference }] as const];
  });
  return {
    name,
    title,
    metrics: Object.fromEntries(metrics),
    curve: band(table.of(name).map(({ curves }) => curves.validationLoss)),
    difference: band(table.pairs(name, baseline).map(({ run, other }) => differenceCurve(run, other))),
  };
}

type Points = readonly (readonly [step: number, value: number])[];

function differenceCurve(run: RunRecord, other: RunRecord): Points {
  const reference = new Map(other.curves.validationLoss);
  return run.curves.validationLoss.flatMap(([step, value]) => {
    const against = reference.get(step);
    return against ? [[step, (value - against) / Math.abs(against)] as const] : [];
  });
}

/** Mean, lowest and highest over curves, at the steps that all of them have. */
function band(curves: readonly Points[]): BandPoint[] {
  const byStep = new Map<number, number[]>();
  for (const [step, value] of curves.flat()) byStep.set(step, [...(byStep.get(step) ?? []), value]);
  return [...byStep]
    .filter(([, values]) => values.length === curves.length)
    .sort(([a], [b]) => a - b)
    .map(([x, values]) => ({
      x,
      y: values.reduce((sum, value) => sum + value, 0) / values.length,
      low: Math.min(...values),
      high: Math.max(...values),
    }));
}

function distinct<T>(values: readonly T[]): T[] {
  return [...new Map(values.map((value) => [JSON.stringify(value), value])).values()];
}
