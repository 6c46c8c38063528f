import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.js';
import type { Engine, EngineInfo, EngineOptions, GenerateRequest } from '../infer/engine.js';
import { openEngineInWorker } from '../infer/worker-engine.js';
import { Random } from '../numerics/random.js';
import type { Ui } from '../report/ui.js';
import { requireAddon } from './kernels.js';
import {
  keepBusy,
  type Load,
  quantile,
  type Sample,
  Stopwatch,
  StreamingClient,
  throughput,
} from './load.js';
import { describeMachine, type Machine } from './machine.js';

export interface ServeBenchOptions {
  /** The model's folder. */
  folder: string;
  /** Requests at work together. */
  streams: number;
  /** How long new requests are made; the engine alone gets as much, half before and half after. */
  seconds: number;
  /** Tokens of each prompt, and tokens added to it. */
  promptTokens: number;
  newTokens: number;
  engine: EngineOptions;
}

/** Times of requests, seconds. */
export interface Latency {
  p50: number;
  p99: number;
}

/** One side: the server, or the engine alone. */
export interface LoadResult {
  requests: number;
  errors: Record<string, number>;
  tokensPerSecond: number;
  firstToken: Latency;
  perToken: Latency;
}

export interface ServeReport {
  machine: Machine;
  model: Pick<
    EngineInfo,
    'name' | 'weightFormat' | 'weightBytes' | 'cacheFormat' | 'threads' | 'speculative'
  >;
  streams: number;
  seconds: number;
  promptTokens: number;
  newTokens: number;
  server: LoadResult;
  engine: LoadResult;
  /** Throughput of the server over that of the engine alone. */
  ratio: number;
  checks: { name: string; value: number; target: number; met: boolean }[];
}

/** The server may cost a tenth of the engine's throughput. */
const RATIO_TARGET = 0.9;

/**
 * Many streams against `fathom serve` in a process of its own, and the same requests against the engine alone, in the same
 * machine and run: engine, server, engine.
 */
export async function benchServe(options: ServeBenchOptions, ui: Ui): Promise<ServeReport> {
  const addon = requireAddon();
  const progress = ui.progress('bench serve');
  const half = { ...options, seconds: options.seconds / 2 };
  const before = await loadEngine(half);
  progress.update({ done: 1, total: 3 });
  const server = result([await loadServer(options, before.info)]);
  progress.update({ done: 2, total: 3 });
  const after = await loadEngine(half);
  progress.update({ done: 3, total: 3 });
  progress.end();
  const engine = result([before.load, after.load]);
  const { name, weightFormat, weightBytes, cacheFormat, threads, speculative } = before.info;
  const { folder: _, engine: __, ...setting } = options;
  return {
    machine: describeMachine(addon, addon.info().isa),
    model: { name, weightFormat, weightBytes, cacheFormat, threads, speculative },
    ...setting,
    server,
    engine,
    ratio: server.tokensPerSecond / engine.tokensPerSecond,
    checks: checks(server, engine),
  };
}

function checks(server: LoadResult, engine: LoadResult): ServeReport['checks'] {
  const errors = Object.values(server.errors).reduce((n, count) => n + count, 0);
  const ratio = server.tokensPerSecond / engine.tokensPerSecond;
  return [
    { name: 'errors', value: errors, target: 0, met: errors === 0 },
    {
      name: 'throughput of the engine alone',
      value: ratio,
      target: RATIO_TARGET,
      met: ratio >= RATIO_TARGET,
    },
  ];
}

function result(loads: readonly Load[]): LoadResult {
  const samples = loads.flatMap((load) => load.samples);
  const latency = (of: (sample: Sample) => number): Latency => {
    const values = samples.map(of);
    return { p50: quantile(values, 0.5), p99: quantile(values, 0.99) };
  };
  const seconds = loads.reduce((n, load) => n + load.seconds, 0);
  return {
    requests: samples.length,
    errors: sumErrors(loads),
    tokensPerSecond: throughput({ samples, seconds, errors: {} }),
    firstToken: latency((sample) => sample.firstTokenSeconds),
    perToken: latency((sample) => sample.tokenSeconds),
  };
}

function sumErrors(loads: readonly Load[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const [message, count] of loads.flatMap((load) => Object.entries(load.errors)))
    sum[message] = (sum[message] ?? 0) + count;
  return sum;
}

/** Prompts of random tokens share nothing, so that each of them is read in full. */
function promptOf(index: number, length: number, vocabulary: number): number[] {
  const random = new Random(index + 1);
  return Array.from({ length }, () => random.below(vocabulary));
}

async function loadEngine(options: ServeBenchOptions): Promise<{ load: Load; info: EngineInfo }> {
  const { folder, streams, seconds, promptTokens, newTokens } = options;
  const engine = await openEngineInWorker(folder, options.engine);
  try {
    const vocabulary = engine.info.config.vocab_size;
    const run = (index: number) =>
      generate(engine, {
        prompt: promptOf(index, promptTokens, vocabulary),
        maxTokens: newTokens,
        ignoreEos: true,
      });
    return { load: await keepBusy(run, streams, seconds), info: engine.info };
  } finally {
    await engine.close();
  }
}

async function generate(engine: Engine, request: GenerateRequest): Promise<Sample> {
  const watch = new Stopwatch();
  let tokens = 0;
  for await (const event of engine.generate(request)) {
    if (event.type === 'text') watch.event();
    else tokens = event.usage.completionTokens;
  }
  return watch.sample(tokens);
}

async function loadServer(options: ServeBenchOptions, { config }: EngineInfo): Promise<Load> {
  const { streams, seconds, promptTokens, newTokens } = options;
  const { url, child } = await startServer(options);
  const client = new StreamingClient(url);
  try {
    const run = (index: number) =>
      client.complete({
        prompt: promptOf(index, promptTokens, config.vocab_size),
        max_tokens: newTokens,
        ignore_eos: true,
      });
    return await keepBusy(run, streams, seconds);
  } finally {
    client.close();
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

/** `fathom serve` as a process, on any free port. */
async function startServer({
  folder,
  engine,
}: ServeBenchOptions): Promise<{ url: string; child: ChildProcess }> {
  const flags = Object.entries({
    weights: engine.weights,
    cache: engine.cache,
    'cache-tokens': engine.cacheTokens,
    ctx: engine.contextTokens,
    threads: engine.threads,
    'max-batch': engine.maxBatch,
    'max-queue': engine.maxQueue,
  }).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, String(value)]));
  const main = fileURLToPath(new URL('../cli/main.js', import.meta.url));
  const child = spawn(process.execPath, [main, 'serve', folder, '--port', '0', ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  // Whatever ends the bench ends the server.
  process.once('exit', () => child.kill());
  let said = '';
  for await (const line of createInterface({ input: child.stderr })) {
    said += `${line} `;
    const url = /(http:\S+)\/v1,/.exec(line)?.[1];
    if (url !== undefined) return { url, child };
  }
  throw new UserError(`fathom serve did not start: ${said.trim()}`);
}
