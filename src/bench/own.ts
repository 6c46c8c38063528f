import { fileURLToPath } from 'node:url';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import { LineProcess } from './line-process.js';

export interface OwnSettings {
  weights: WeightFormat;
  cache: CacheFormat;
  threads: number;
  /** Longest sequence. */
  contextTokens: number;
  /** Sequences that the cache has room for. */
  sequences: number;
}

/** Our own side of a comparison, in a process of its own (infer-worker.ts): the runner in a bare loop, or the engine. */
export async function startOwn(
  kind: 'runner' | 'engine',
  folder: string,
  { weights, cache, threads, contextTokens, sequences }: OwnSettings,
): Promise<LineProcess> {
  const script = fileURLToPath(new URL('./infer-worker.js', import.meta.url));
  const flags = { weights, cache, threads, ctx: contextTokens, seqs: sequences };
  const args = Object.entries(flags).map(([name, value]) => `${name}=${value}`);
  return (await LineProcess.start(`fathom's ${kind}`, process.execPath, [script, kind, folder, ...args]))
    .process;
}
