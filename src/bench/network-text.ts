import { table } from '../report/table.js';
import { bytes, count, duration } from '../report/units.js';
import type { NetworkReport } from './network.js';

/** The report for a terminal. */
export function networkText({ cases }: NetworkReport): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const titles = ['flows', 'changes', 'routing', 'run', 'target', 'SimGrid', 'memory'];
  const rows = cases.map((one) => [
    one.name,
    count(one.flows),
    count(one.events),
    duration(one.routingSeconds),
    duration(one.runSeconds),
    `${one.runSeconds <= one.targetSeconds ? 'met' : 'MISSED'} ${duration(one.targetSeconds)}`,
    one.simgridSeconds === null ? '—' : duration(one.simgridSeconds),
    bytes(one.residentBytes),
  ]);
  return table([{ title: 'all-to-all, processor time' }, ...titles.map(right)], rows);
}
