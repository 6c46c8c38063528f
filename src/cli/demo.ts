import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { list } from '../report/table.js';
import { TRAINABLE_PRESETS } from '../spec/presets.js';
import type { TrainResult } from '../train/run.js';
import { addEngineOptions, type EngineFlags, present } from './engine.js';
import { type Written, write } from './generate.js';
import { integer } from './options.js';
import { runs, type Session } from './session.js';
import { describeTraining, lossCurve } from './training-report.js';

interface DemoFlags extends EngineFlags {
  preset: string;
  out?: string;
  steps?: number;
}

/** How speeches in the default corpus begin. */
const PROMPT = 'Fellow-Citizens of the Senate and House of Representatives:';
const SAMPLE = { maxTokens: 120, temperature: 0.7, topP: 0.95, seed: 0 };

/** `fathom demo`, what `npm start` runs. */
export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .description('train a small model on bundled text, show how it went and what it writes')
    .addOption(new Option('--preset <name>', 'model and settings').choices(TRAINABLE_PRESETS).default('mini'))
    .option('--out <dir>', 'the folder of the run (default: runs/PRESET)')
    .option('--steps <n>', 'optimizer steps', integer(1));
  runs<DemoFlags>(addEngineOptions(command), async (session, flags) => {
    const out = flags.out ?? join('runs', flags.preset);
    const training = await trainOnce(session, out, flags);
    session.print(`\n${training ? await describeTraining(training) : await lossCurve(out)}\n\n`);
    if (training?.ended === 'signal') return { json: { out, training, sample: null } };
    const sample = await writeSample(session, out, flags);
    session.print(`\n\n${whatNext(out)}\n`);
    return { json: { out, training, sample: { prompt: PROMPT, text: sample.text } } };
  });
}

/** Trains, or goes on with a run that was broken off; null where the run in `out` is complete. */
async function trainOnce(
  session: Session,
  out: string,
  { preset, ...flags }: DemoFlags,
): Promise<TrainResult | null> {
  const { runTraining } = await import('../train/run.js');
  const { runStatus } = await import('../train/run-status.js');
  const status = runStatus(out);
  if (status === 'complete') {
    session.note(`${out} is trained already; remove it to train anew`);
    return null;
  }
  const resume = status === 'unfinished';
  if (resume) session.note(`going on with the run in ${out}`);
  return runTraining({ ...present(flags), out, ...(resume ? { resume } : { preset }) }, session);
}

async function writeSample(session: Session, out: string, flags: EngineFlags): Promise<Written> {
  const { openEngine } = await import('../infer/open-engine.js');
  const engine = await openEngine(out, present({ backend: flags.backend, threads: flags.threads }));
  session.print(PROMPT);
  const written = await write(session, engine, { prompt: PROMPT, ...SAMPLE });
  await engine.close();
  return written;
}

const whatNext = (out: string): string =>
  `Next:\n${list([
    [`  npx fathom generate ${out} -p "The state of the Union is"`, 'write more'],
    [`  npx fathom chat ${out}`, 'let it go on with what you say'],
    [`  npx fathom inspect ${out}`, 'see what is inside'],
    ['  npx fathom train --data YOUR.txt --out runs/mine', 'train on text of your own'],
    ['  npx fathom --help', 'everything else'],
  ])}`;
