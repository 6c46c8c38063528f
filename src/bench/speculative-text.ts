import { list, table } from '../report/table.js';
import { count, percent } from '../report/units.js';
import { machineLines, verdict } from './kernel-text.js';
import type { SpeculativeReport } from './speculative.js';

const COLUMNS = ['tokens/s without drafts', 'with', 'speed-up', 'drafts right', 'second row', 'module'];

/** The report for a terminal; costs as shares of a step with one row. */
export function speculativeText({
  machine,
  threads,
  parameters,
  results,
  checks,
}: SpeculativeReport): string {
  const rows = results.map(({ weights, plain, drafted, speedup, acceptance, costs }) => [
    weights,
    (1 / plain.median).toFixed(0),
    (1 / drafted.median).toFixed(0),
    speedup.toFixed(2),
    percent(acceptance),
    percent(costs.twoRows / costs.step - 1),
    percent(costs.module / costs.step),
  ]);
  const same = results.every((result) => result.same);
  return [
    list([
      ...machineLines(machine),
      [
        'model',
        `orders, trained here on JSON records: ${count(parameters.total)} parameters, ${count(parameters.active)} active, 20 layers and an MTP module`,
      ],
      ['threads', String(threads)],
    ]),
    table([{ title: 'weights' }, ...COLUMNS.map((title) => ({ title, align: 'right' as const }))], rows),
    same ? 'The same tokens with drafts and without.' : 'NOT the same tokens with drafts as without.',
    list(
      checks.map(({ name, value, target, met }) => [
        name,
        `${value.toFixed(2)} (target ${target.toFixed(2)}): ${verdict(met)}`,
      ]),
    ),
  ].join('\n\n');
}
