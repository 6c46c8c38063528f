/** A study's report for a terminal. */
import { table } from '../report/table.js';
import { bytes } from '../report/units.js';
import type { StudyReport } from './analysis.js';
import { METRICS, type MetricName } from './metrics.js';
import { differenceText, evidenceText, ruleText, valueText } from './wording.js';

export function reportText(report: StudyReport): string {
  const { study, runs } = report;
  const parts = [
    `${study.title}\n${study.question}`,
    ...report.claims.map((claim) => claimText(claim, study.confidence)),
    valueTable(report),
    differenceTable(report),
    [
      `${runs.complete} of ${runs.expected} runs; seeds ${study.seeds.join(', ')}; ${machineText(report)}`,
      ...runs.failed.map(({ variant, seed, error }) => `failed: ${variant}, seed ${seed}: ${error}`),
    ].join('\n'),
  ];
  return parts.join('\n\n');
}

const claimText = (claim: StudyReport['claims'][number], confidence: number): string =>
  [
    `${claim.verdict.toUpperCase()} at this scale: ${claim.text} ${claim.source}`,
    `  ${ruleText(claim)}: ${evidenceText(claim, confidence)}`,
  ].join('\n');

function valueTable({ study, variants }: StudyReport): string {
  const columns = [{ title: 'variant' }, ...study.metrics.map(column)];
  const rows = variants.map(({ name, metrics }) => [
    name,
    ...study.metrics.map((metric) => (metrics[metric] ? valueText(metrics[metric], metric) : '–')),
  ]);
  return table(columns, rows);
}

function differenceTable({ study, variants, baseline }: StudyReport): string {
  const columns = [{ title: `against ${baseline}` }, ...study.metrics.map(column)];
  const others = variants.filter(({ name }) => name !== baseline);
  const rows = others.map(({ name, metrics }) => [
    name,
    ...study.metrics.map((metric) => (metrics[metric] && differenceText(metrics[metric])) || '–'),
  ]);
  return table(columns, rows);
}

const column = (metric: MetricName) => ({ title: METRICS[metric].label, align: 'right' as const });

/** What the runs were made on, machine by machine. */
export const machineText = ({ machines, finished }: StudyReport): string =>
  [
    ...machines.map(
      ({ cpu, cores, threads, memoryBytes, backend, system, node }) =>
        `${cpu}, ${threads} of ${cores} cores a run, ${bytes(memoryBytes)}, ${backend} kernels, ${system}, Node ${node}`,
    ),
    finished?.slice(0, 10) ?? 'no runs yet',
  ].join('; ');
