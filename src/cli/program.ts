import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addBench } from './bench.js';
import { addCalibrate } from './calibrate.js';
import { addChat } from './chat.js';
import { addCompare } from './compare.js';
import { addConvert } from './convert.js';
import { addDemo } from './demo.js';
import { guardStreams, reportFailure } from './failures.js';
import { addGenerate } from './generate.js';
import { addInspect } from './inspect.js';
import { addLaunch } from './launch.js';
import { addNetwork } from './network.js';
import { addNumerics } from './numerics.js';
import { addPaper } from './paper.js';
import { addPlan } from './plan.js';
import { addScore } from './score.js';
import { addServe } from './serve.js';
import { addStudy } from './study.js';
import { addTokenizer } from './tokenizer.js';
import { addTrain } from './train.js';

/** Parses `argv` (as in `process.argv`), runs the command and sets the exit code: 0, 1 for a failure, 2 for wrong use. */
export async function runCommandLine(argv: readonly string[]): Promise<void> {
  guardStreams();
  const program = createProgram();
  try {
    if (argv.length <= 2) program.outputHelp();
    else await program.parseAsync(argv);
  } catch (error) {
    process.exitCode = reportFailure(error, argv);
  }
}

/** All commands. Their engines are loaded when a command runs, so that `--help` is quick. */
export function createProgram(): Command {
  const program = new Command('fathom')
    .description('The DeepSeek-V3 system on the machine at hand: MLA, DeepSeekMoE, MTP, FP8')
    .version(packageVersion(), '--version')
    .helpOption('--help', 'show what a command takes')
    // Failures are thrown, not printed: `reportFailure` prints every kind in one way.
    .exitOverride()
    .configureOutput({ outputError: () => {} });
  addTrain(program);
  addGenerate(program);
  addChat(program);
  addScore(program);
  addServe(program);
  addInspect(program);
  addConvert(program);
  addTokenizer(program);
  addNumerics(program);
  addNetwork(program);
  addLaunch(program);
  addBench(program);
  addStudy(program);
  addPlan(program);
  addPaper(program);
  addCalibrate(program);
  addCompare(program);
  addDemo(program);
  return program;
}

function packageVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
