import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile } from '../files.js';
import { signedPercent } from '../report/numbers.js';
import { duration } from '../report/units.js';
import { parseMachine } from '../spec/machine.js';
import type { TrainResult } from '../train/run.js';

/** What a calibration of this machine predicts of a step, beside what the run took; undefined where there is none. */
export async function predictedBeside({
  out,
  tokensPerSecond,
  mfu,
}: TrainResult): Promise<string | undefined> {
  const { cacheFolder } = await import('../bench/random-model.js');
  const file = join(cacheFolder(), 'machine.json');
  // Without the native backend nothing was calibrated.
  if (mfu === null || !existsSync(file)) return undefined;
  const { engine } = parseMachine(readJsonFile(file), file);
  if (!engine) return undefined;
  const { predictStep } = await import('../bench/calibrate.js');
  const { selectBackend } = await import('../backend/select.js');
  const { checkedConfig } = await import('../train/run-file.js');
  const { tokensPerStep } = await import('../train/config.js');
  const run = readJsonFile(join(out, 'run.json')) as { config: unknown };
  const { config, model } = checkedConfig(run.config, join(out, 'run.json'));
  if (model.attention_kind !== 'mla') return undefined;
  const predicted = predictStep(config, model, selectBackend('auto', engine.threads), engine.ops);
  const measured = tokensPerStep(config) / tokensPerSecond;
  const deviation = signedPercent(predicted / measured - 1);
  return `step        ${duration(predicted)} predicted (${engine.threads} threads), ${duration(measured)} measured: ${deviation}`;
}
