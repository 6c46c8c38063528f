import type { Command } from 'commander';
import { readJsonFile } from '../files.js';
import { compareReports, type Difference } from '../report/compare.js';
import { plainNumber, signedPercent } from '../report/numbers.js';
import { table } from '../report/table.js';
import { real } from './options.js';
import { type Outcome, runs } from './session.js';

interface CompareFlags {
  all?: boolean;
  within?: number;
}

/** `fathom compare A B`: two reports of any command that prints JSON. */
export function addCompare(program: Command): void {
  const command = program
    .command('compare')
    .description('compare two reports (what --json prints): estimates, simulations or runs, figure by figure')
    .argument('<a>', 'a report (JSON)')
    .argument('<b>', 'another')
    .option('--all', 'show figures that are equal as well')
    .option('--within <share>', 'exit with 1 where a figure differs by more, as in 0.05', real(0));
  runs<CompareFlags>(command, (_session, { all = false, within }, [a, b]): Outcome => {
    const differences = compareReports(readJsonFile(a!), readJsonFile(b!));
    const shown = differences.filter(({ a: x, b: y }) => all || x !== y);
    if (within !== undefined && differences.some((one) => exceeds(one, within))) process.exitCode = 1;
    const text = shown.length === 0 ? `${differences.length} figures, all equal` : differenceTable(shown);
    return { json: { differences: shown }, text };
  });
}

const exceeds = ({ change }: Difference, within: number): boolean =>
  change === null || Math.abs(change) > within;

function differenceTable(differences: readonly Difference[]): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const cell = (value: Difference['a']) =>
    typeof value === 'number' ? plainNumber(value) : String(value ?? '–');
  const rows = differences.map(({ path, a, b, change }) => [
    path,
    cell(a),
    cell(b),
    change === null ? '' : signedPercent(change),
  ]);
  return table([{ title: 'figure' }, right('A'), right('B'), right('B over A')], rows);
}
