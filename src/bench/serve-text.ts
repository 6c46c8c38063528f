import { list, table } from '../report/table.js';
import { bytes, duration, percent, rate } from '../report/units.js';
import { machineLines, verdict } from './kernel-text.js';
import type { LoadResult, ServeReport } from './serve.js';

/** The report for a terminal. */
export function serveText(report: ServeReport): string {
  const { model, server, engine } = report;
  return [
    list([
      ...machineLines(report.machine),
      [
        'model',
        `${model.name}, ${bytes(model.weightBytes)} in ${model.weightFormat}, cache ${model.cacheFormat}, ${model.threads} threads`,
      ],
      [
        'load',
        `${report.streams} streams, ${report.promptTokens} tokens read and ${report.newTokens} written each, ${duration(report.seconds)}`,
      ],
    ]),
    loadTable({ 'fathom serve': server, 'engine alone': engine }),
    list(report.checks.map((check) => [check.name, checkText(check)])),
  ].join('\n\n');
}

function loadTable(sides: Record<string, LoadResult>): string {
  const titles = ['requests', 'errors', 'speed', 'TTFT p50', 'p99', 'TPOT p50', 'p99'];
  const rows = Object.entries(sides).map(([name, r]) => [
    name,
    String(r.requests),
    String(Object.values(r.errors).reduce((n, count) => n + count, 0)),
    rate(r.tokensPerSecond, 'tokens'),
    ...[r.firstToken.p50, r.firstToken.p99, r.perToken.p50, r.perToken.p99].map(duration),
  ]);
  return table([{ title: 'load' }, ...titles.map((title) => ({ title, align: 'right' as const }))], rows);
}

const checkText = ({ name, value, target, met }: ServeReport['checks'][number]): string =>
  name === 'errors'
    ? `${value} (target ${target}): ${verdict(met)}`
    : `${percent(value)} (target ${percent(target)}): ${verdict(met)}`;
