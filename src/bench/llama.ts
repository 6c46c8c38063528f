/** llama.cpp as a peer of `bench infer`: its C API and node-llama-cpp, installed in the cache folder the first time. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.js';
import type { Ui } from '../report/ui.js';
import { LineProcess } from './line-process.js';
import { cacheFolder } from './random-model.js';

const PEERS = fileURLToPath(new URL('../../bench/peers/', import.meta.url));

/** Version that bench/peers/llama_cpp.sh installs. */
export const LLAMA_VERSION = { llamaCpp: 'v0.5.0', nodeLlamaCpp: '3.22.1' } as const;

/** What is set for one run of the C API. */
export interface LlamaSettings {
  threads: number;
  /** Weights brought into the layouts of its AMX and repacked kernels. */
  repack?: boolean;
  flashAttention?: boolean;
  /** Type of the key-value cache. */
  cache?: 'f16' | 'f32';
  contextTokens?: number;
  sequences?: number;
}

/** Installs both where they are missing. @returns their folder @throws UserError when that fails */
export function installLlama(ui: Ui): string {
  const folder = path.join(cacheFolder(), 'llama.cpp');
  if (!existsSync(path.join(folder, 'llama_cpp')))
    ui.note(`installing and building llama.cpp in ${folder}, once`);
  const setup = spawnSync('sh', [path.join(PEERS, 'llama_cpp.sh'), folder], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  });
  if (setup.status === 0) return folder;
  const last = setup.stderr?.trim().split('\n').at(-1) ?? '';
  throw new UserError(
    `llama.cpp could not be installed in ${folder} (needs npm, git, cmake and a C++ compiler): ${last}`,
  );
}

/** The C API with a model. */
export async function startLlama(
  folder: string,
  model: string,
  settings: LlamaSettings,
): Promise<LineProcess> {
  const {
    repack = true,
    flashAttention = true,
    cache = 'f16',
    contextTokens = 8192,
    sequences = 8,
  } = settings;
  const flags = {
    threads: settings.threads,
    repack: repack ? 1 : 0,
    fa: flashAttention ? 1 : 0,
    kv: cache,
    ctx: contextTokens,
    seqs: sequences,
  };
  const args = Object.entries(flags).map(([name, value]) => `${name}=${value}`);
  return (await LineProcess.start('llama.cpp', path.join(folder, 'llama_cpp'), [model, ...args])).process;
}

/** node-llama-cpp with a model. @param threads 0 for its own choice */
export async function startNodeLlama(
  folder: string,
  model: string,
  {
    threads,
    cache = 'f16',
    contextTokens = 8192,
  }: Pick<LlamaSettings, 'threads' | 'cache' | 'contextTokens'>,
): Promise<{ process: LineProcess; threads: number }> {
  const args = [`threads=${threads}`, `ctx=${contextTokens}`, `kv=${cache.toUpperCase()}`];
  const script = [path.join(PEERS, 'node_llama.mjs'), path.join(folder, 'node', 'node_modules'), model];
  const { process: child, greeting } = await LineProcess.start('node-llama-cpp', process.execPath, [
    ...script,
    ...args,
  ]);
  return { process: child, threads: Number(greeting.threads) };
}
