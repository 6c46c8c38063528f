import { list, table } from '../report/table.js';
import { duration } from '../report/units.js';
import type { PlanReport } from './plan.js';

/** The planner's speed as text. */
export function planBenchText({ estimate, search, command, dense, peers }: PlanReport): string {
  const own = list([
    ['one estimate', `${duration(estimate.median)} (at most 100 µs), nothing kept from another`],
    [
      'search',
      `${search.predicted} plans in ${duration(search.seconds)}, ${duration(search.secondsEach)} each, one thread`,
    ],
    [
      'fathom plan search',
      `${command.predicted} plans in ${duration(command.seconds)}, ${command.threads} threads, with its start`,
    ],
    ['without experts', `${duration(dense.secondsEach)} each of ${dense.configurations} configurations`],
  ]);
  if (peers.length === 0) return own;
  const right = (title: string) => ({ title, align: 'right' as const });
  const rows = peers.map(({ name, version, secondsEach, ratio, searchRatio }) => [
    `${name} ${version}`,
    duration(secondsEach),
    `${ratio.toPrecision(3)} ×`,
    `${searchRatio.toPrecision(3)} ×`,
  ]);
  const columns = [
    { title: 'beside' },
    right('a configuration'),
    right('over ours, anew'),
    right('over ours, in a search'),
  ];
  return `${own}\n\n${table(columns, rows)}`;
}
