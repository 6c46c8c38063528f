import { basename, extname, join } from 'node:path';
import { type Command, Option } from 'commander';
import { TRAINABLE_PRESETS } from '../spec/presets.js';
import type { RankOptions } from '../train/ranks.js';
import type { TrainResult } from '../train/run.js';
import type { RunOptions } from '../train/run-file.js';
import { addCorpusOptions, type CorpusFlags } from './corpus.js';
import { addEngineOptions, type EngineFlags, PRECISIONS, type Precision, present } from './engine.js';
import { integer, words } from './options.js';
import { addRankOptions, isRank, onRank } from './ranks.js';
import { type Outcome, runs, type Session } from './session.js';
import { describeTraining } from './training-report.js';

interface TrainFlags extends CorpusFlags, EngineFlags, RankOptions {
  preset?: string;
  config?: string;
  tokenizer?: string;
  dataCache?: string;
  out?: string;
  steps?: number;
  precision?: Precision;
  seed?: number;
  stopAfter?: number;
  resume?: boolean;
  capture?: boolean;
  captureEvery?: number;
  verify?: 'gemm';
  verifyEvery?: number;
}

/** `fathom train`. */
export function addTrain(program: Command): void {
  const command = program
    .command('train')
    .description('train a model on text and save it in Hugging Face layout')
    .addOption(
      new Option('--preset <name>', 'model and settings (default: mini)')
        .choices(TRAINABLE_PRESETS)
        .conflicts('config'),
    )
    .option('--config <file>', 'a training file (JSON) in place of a preset');
  addCorpusOptions(command)
    .option('--tokenizer <dir>', 'a tokenizer to use; by default one is trained on the corpus')
    .option(
      '--data-cache <dir>',
      'where the tokenised corpus is kept, for runs that share it (default: OUT/data)',
    )
    .option('--out <dir>', 'the folder of the run (default: runs/NAME)')
    .option('--steps <n>', 'optimizer steps', integer(1))
    .addOption(
      new Option('--precision <name>', 'the number formats to train in (default: fp8)').choices(PRECISIONS),
    );
  addEngineOptions(command)
    .option('--seed <n>', 'decides weights and the order of the data (default: 0)', integer(0))
    .option('--stop-after <n>', 'end after so many steps of this process, the run saved', integer(1))
    .option('--resume', 'go on with the run in --out')
    .option('--capture', 'keep tensors of the last step in OUT/capture, for fathom numerics compare')
    .option('--capture-every <n>', 'keep those of every so many steps too', integer(1));
  command
    .addOption(
      new Option('--verify <what>', 'look for silent corruption: checksums of products').choices(['gemm']),
    )
    .option('--verify-every <n>', 'steps between such checks (default: 10)', integer(1));
  addRankOptions(command)
    .option(
      '--digest-every <n>',
      'over ranks: steps between comparisons of parameters (default: 50; 0: never)',
      integer(0),
    )
    .option(
      '--planes <list>',
      "a host's network interfaces, one on each plane of the network, as in eth0,eth1 (default: as MPI has it)",
      words,
    )
    .option('--overlap', 'two halves of each micro-batch overlap (default: where experts are on other hosts)')
    .option('--no-overlap', 'one micro-batch at a time');
  runs<TrainFlags>(command, async (session, { config, ...flags }) => {
    const out = flags.out ?? join('runs', flags.preset ?? nameOf(config) ?? 'mini');
    const verifyEvery = flags.verify ? (flags.verifyEvery ?? 10) : undefined;
    const options = { ...present({ ...flags, configFile: config, verifyEvery }), out };
    if (await isRank(flags)) return trainRank(options, session);
    const { runTraining } = await import('../train/run.js');
    const result = await runTraining(options, session);
    return besideItsPrediction(result);
  });
}

/** What a run was like, with its step as this machine's calibration predicts it. */
async function besideItsPrediction(result: TrainResult): Promise<Outcome> {
  const { predictedLine, predictedStep } = await import('./predicted.js');
  const { predicted, text: line } = await predictedLine('step', () => predictedStep(result));
  const text = await describeTraining(result);
  return { json: predicted ? { ...result, predicted } : result, text: line ? `${text}\n${line}` : text };
}

/** One rank of `mpirun … fathom train`; rank 0 alone speaks. */
async function trainRank(
  options: RunOptions & RankOptions & { capture?: boolean },
  session: Session,
): Promise<Outcome> {
  const { openOnPlanes } = await import('../expert/planes/open.js');
  const { trainOnRanks } = await import('../train/ranks.js');
  return onRank(
    () => openOnPlanes(options),
    async (transport) => {
      const result = await trainOnRanks(transport, options, session);
      return transport.rank === 0 ? besideItsPrediction(result) : {};
    },
  );
}

const nameOf = (file: string | undefined): string | undefined => file && basename(file, extname(file));
