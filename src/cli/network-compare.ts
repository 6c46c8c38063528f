import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { PlottedReproduction } from '../paper/network-figures.js';
import type { Reproduction } from '../paper/row.js';
import { simulateOne } from './network-simulate.js';
import * as text from './network-text.js';
import { openScenario, SCENARIO } from './open-scenario.js';
import { integer } from './options.js';
import { type Outcome, runs, type Session } from './session.js';
import { writeText } from './write-text.js';

interface CompareFlags {
  preset?: 'paper';
  out?: string;
  tokens: number;
  seeds: number;
}

/** `fathom network compare`. */
export function addCompare(group: Command): void {
  const command = group
    .command('compare')
    .description(
      'run scenarios and put them side by side; or the paper’s tables and figures, theirs beside ours',
    )
    .argument('[scenarios...]', SCENARIO)
    .addOption(new Option('--preset <name>', 'what to compare with').choices(['paper']))
    .option('--out <dir>', 'write the figures (SVG) and a JSON file here')
    .option('--tokens <n>', 'a GPU, of figure 7', integer(1), 4096)
    .option('--seeds <n>', 'of ECMP’s hashes, of figure 8', integer(1), 20);
  runs<CompareFlags>(command, async (session, flags, names) => {
    if (flags.preset === 'paper' && names.length === 0) return comparePaper(session, flags);
    if (flags.preset || names.length < 2)
      throw new UsageError('name two or more scenarios, or --preset paper alone');
    const results = [];
    for (const name of names) results.push(await simulateOne(session, await openScenario(name), {}));
    return { json: { results }, text: text.compared(results) };
  });
}

async function comparePaper(session: Session, { out, tokens, seeds }: CompareFlags): Promise<Outcome> {
  const { table3 } = await import('../paper/table-3.js');
  const figures = await import('../paper/network-figures.js');
  const { PRICE_BOOKS } = await import('../spec/prices.js');
  const work: (() => Reproduction | PlottedReproduction)[] = [
    () => table3(PRICE_BOOKS['isca-2025']),
    figures.table5,
    figures.figure5,
    figures.figure6,
    () => figures.figure7(tokens),
    () => figures.figure8(seeds),
  ];
  const progress = session.progress('paper');
  const reproductions = work.map((make, i) => {
    const made = make();
    progress.update({ done: i + 1, total: work.length });
    return made;
  });
  progress.end();
  const written = out === undefined ? [] : await writeFigures(out, reproductions);
  return { json: { reproductions, written }, text: text.reproduced(reproductions, written) };
}

async function writeFigures(folder: string, reproductions: readonly (Reproduction | PlottedReproduction)[]) {
  const { join } = await import('node:path');
  const { lineSvg } = await import('../report/lines.js');
  const written: string[] = [];
  for (const reproduction of reproductions) {
    if (!('series' in reproduction)) continue;
    const { title, xLabel, yLabel, xText, yText, series } = reproduction;
    const file = join(folder, `${reproduction.source.toLowerCase().replaceAll(' ', '-')}.svg`);
    const curves = series.map(({ name, points }) => ({
      name,
      points: [...points].sort((a, b) => a.x - b.x),
    }));
    const texts = { ...(xText ? { xText } : {}), ...(yText ? { yText } : {}) };
    await writeText(file, lineSvg({ title, xLabel, yLabel, ...texts, curves }));
    written.push(file);
  }
  const json = join(folder, 'network.json');
  await writeText(json, `${JSON.stringify(reproductions, null, 1)}\n`);
  return [...written, json];
}
