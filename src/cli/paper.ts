import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { readJsonFile, writeFileAtomicallySync, writeFully } from '../files.js';
import type { StudySummary } from '../paper/studies.js';
import type { Predictions } from '../paper/this-machine.js';
import { type Outcome, runs, type Session } from './session.js';

interface PaperFlags {
  only?: string;
  html?: string;
  studies?: string;
}

/** `fathom paper`. */
export function addPaper(program: Command): void {
  const command = program
    .command('paper')
    .description('recompute the tables and figures of "Insights into DeepSeek-V3", with deviations')
    .option('--only <list>', 'parts to recompute, as in table1,table4')
    .option('--html <file>', 'write one self-contained page with all figures')
    .option('--studies <dir>', 'reports of studies (default: those that come with fathom)');
  runs<PaperFlags>(command, runPaper);
}

/** Exit code 1 where a row leaves its band, with everything printed all the same. */
async function runPaper(session: Session, flags: PaperFlags): Promise<Outcome> {
  const { makePart, paperParts } = await import('../paper/catalogue.js');
  const { outside, paperText } = await import('../paper/text.js');
  const parts = paperParts(flags.only?.split(',').map((name) => name.trim()));
  const input = {
    studies: await readStudies(flags.studies ?? BUNDLED),
    predictions: await readPredictions(),
  };
  const progress = session.progress('paper');
  const results = parts.map((part, i) => {
    progress.update({ done: i, total: parts.length, details: [part.id] });
    return makePart(part, input);
  });
  progress.end();
  if (flags.html !== undefined) {
    const { paperPage } = await import('../paper/page.js');
    const about = [`fathom paper, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}`];
    const page = paperPage(results, about);
    const bytes = new TextEncoder().encode(page);
    writeFileAtomicallySync(flags.html, (descriptor) => writeFully(descriptor, bytes, 0));
  }
  const wrong = outside(results);
  if (wrong.length > 0) {
    process.exitCode = 1;
    session.note(`outside their bands: ${wrong.join('; ')}`);
  }
  const written = flags.html === undefined ? '' : `\n\n${flags.html}`;
  return { json: { parts: results, outside: wrong }, text: paperText(results) + written };
}

/** Those of this machine, or else those that come with fathom. */
async function readPredictions(): Promise<Predictions | undefined> {
  const { cacheFolder } = await import('../bench/random-model.js');
  const { PREDICTIONS } = await import('./calibrate.js');
  const { parsePredictions } = await import('../paper/this-machine.js');
  const file = [join(cacheFolder(), PREDICTIONS), BUNDLED_PREDICTIONS].find((one) => existsSync(one));
  return file === undefined ? undefined : parsePredictions(readJsonFile(file), file);
}

const BUNDLED_PREDICTIONS = fileURLToPath(new URL('../../bench/results/predictions.json', import.meta.url));
const BUNDLED = fileURLToPath(new URL('../../docs/studies', import.meta.url));

async function readStudies(folder: string): Promise<StudySummary[]> {
  const { parseStudy } = await import('../paper/studies.js');
  if (!existsSync(folder)) return [];
  const files = readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory()
      ? [join(entry.name, 'report.json')]
      : entry.name.endsWith('.json')
        ? [entry.name]
        : [],
  );
  const found = files.sort().filter((name) => existsSync(join(folder, name)));
  return found.map((name) => parseStudy(readJsonFile(join(folder, name)), name));
}
