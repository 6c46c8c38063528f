import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { RankSpread } from '../bench/predictions.js';
import { UserError } from '../errors.js';
import { readJsonFile } from '../files.js';
import type { EngineInfo, EngineStats } from '../infer/engine.js';
import { signedPercent } from '../report/numbers.js';
import { duration } from '../report/units.js';
import { type Machine, parseMachine } from '../spec/machine.js';
import type { TrainResult } from '../train/run.js';

/** What the calibration of this machine says of a run, beside what the run took. */
export interface Predicted {
  /** Of one step. */
  predictedSeconds: number;
  measuredSeconds: number;
  /** predicted / measured − 1. */
  deviation: number;
  /** Threads that the calibration was made with. */
  threads: number;
}

export type EngineCosts = NonNullable<Machine['engine']>;

/**
 * Costs of the engine's operations as `fathom calibrate` left them; undefined where it has not been run.
 * @throws UserError where the file is none
 */
export async function engineCosts(): Promise<EngineCosts | undefined> {
  return (await calibrated())?.engine;
}

/** This machine as `fathom calibrate` left it. */
async function calibrated(): Promise<Machine | undefined> {
  const { cacheFolder } = await import('../bench/random-model.js');
  const file = join(cacheFolder(), 'machine.json');
  return existsSync(file) ? parseMachine(readJsonFile(file), file) : undefined;
}

/** The step of a finished run, over ranks or not; undefined where this machine is not calibrated, or not for such a model. */
export async function predictedStep(
  result: TrainResult & { ranks?: RankSpread },
): Promise<Predicted | undefined> {
  const { out, tokensPerSecond, mfu, ranks } = result;
  // Without the native backend nothing was calibrated; over ranks no utilisation is told.
  const machine = mfu === null && !ranks ? undefined : await calibrated();
  if (!machine?.engine) return undefined;
  const { engine } = machine;
  const { predictRankedStep, predictStep } = await import('../bench/predictions.js');
  const { selectBackend } = await import('../backend/select.js');
  const { checkedConfig } = await import('../train/run-file.js');
  const { tokensPerStep } = await import('../train/config.js');
  const run = readJsonFile(join(out, 'run.json')) as { config: unknown };
  const { config, model } = checkedConfig(run.config, join(out, 'run.json'));
  if (model.attention_kind !== 'mla') return undefined;
  const like = selectBackend('auto', engine.threads);
  const predictedSeconds = ranks
    ? predictRankedStep(config, model, ranks, like, machine)
    : predictStep(config, model, like, engine);
  if (predictedSeconds === undefined) return undefined;
  const measuredSeconds = tokensPerStep(config) / tokensPerSecond;
  const deviation = predictedSeconds / measuredSeconds - 1;
  return { predictedSeconds, measuredSeconds, deviation, threads: engine.threads };
}

/** A mean step of decoding on a server; undefined where this machine is not calibrated, or not for such weights. */
export async function predictedDecoding(
  info: EngineInfo,
  stats: EngineStats,
): Promise<Predicted | undefined> {
  const engine = info.backend === 'native' && stats.decodeSteps > 0 ? await engineCosts() : undefined;
  // Costs are those of weights and cache in BF16, and of one process.
  if (!engine || info.ranks || info.weightFormat !== 'bf16' || info.cacheFormat !== 'bf16') return undefined;
  const { predictDecoding } = await import('../bench/predictions.js');
  const { selectBackend } = await import('../backend/select.js');
  const { decodeSteps, decodeSequences, decodeRows, decodeContext, decodeSeconds } = stats;
  const mean = {
    sequences: decodeSequences / decodeSteps,
    rows: decodeRows / decodeSteps,
    context: decodeContext / decodeSequences,
  };
  const backend = selectBackend('auto', engine.threads);
  const predictedSeconds = predictDecoding(mean, info.config, backend, engine);
  if (predictedSeconds === undefined) return undefined;
  const measuredSeconds = decodeSeconds / decodeSteps;
  const deviation = predictedSeconds / measuredSeconds - 1;
  return { predictedSeconds, measuredSeconds, deviation, threads: engine.threads };
}

/** One line of a report; a Machine file that is wrong is said there, and does not make a run fail that is done. */
export async function predictedLine(
  name: string,
  predict: () => Promise<Predicted | undefined>,
): Promise<{ predicted?: Predicted; text?: string }> {
  try {
    const predicted = await predict();
    return predicted ? { predicted, text: predictedText(name, predicted) } : {};
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return { text: `${name.padEnd(12)}not predicted: ${error.message}; write it anew with fathom calibrate` };
  }
}

export const predictedText = (
  name: string,
  { predictedSeconds, measuredSeconds, deviation, threads }: Predicted,
): string =>
  `${name.padEnd(12)}${duration(predictedSeconds)} predicted (${threads} threads), ${duration(measuredSeconds)} measured: ${signedPercent(deviation)}`;
