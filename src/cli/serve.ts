import { type Command, Option } from 'commander';
import type { Engine, EngineOptions } from '../infer/engine.js';
import { duration } from '../report/units.js';
import type { ServedModel } from '../serve/model.js';
import type { ThreadedPrompts } from '../serve/prompt-threads.js';
import type { ApiServer, ServerOptions } from '../serve/server.js';
import { present } from './engine.js';
import { addInferenceOptions, engineOptions, type InferenceFlags } from './inference.js';
import { END_SIGNALS } from './interrupt.js';
import { integer, real } from './options.js';
import { describeRanks, type OpenEngine, onEngine, type ServingRankFlags } from './rank-engine.js';
import { addServingRankOptions } from './ranks.js';
import { type Outcome, runs, type Session } from './session.js';

interface ServeFlags extends InferenceFlags, ServingRankFlags {
  host: string;
  port: number;
  apiKey?: string;
  allowPublic?: boolean;
  corsOrigin?: string;
  modelName?: string;
  maxBatch: number;
  maxQueue: number;
  timeout: number;
  cacheTokens?: number;
}

/** `fathom serve DIR`. */
export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .description('serve a model over HTTP as OpenAI does, with a chat page at /')
    .argument('<dir>', 'a checkpoint folder with its tokenizer');
  addNetworkOptions(command);
  addModelOptions(command);
  addServingRankOptions(addInferenceOptions(command));
  runs<ServeFlags>(command, async (session, flags, [folder]) => {
    const { checkExposure } = await import('../serve/server.js');
    checkExposure(flags.host, flags.apiKey, flags.allowPublic ?? false);
    let reading: Promise<ThreadedPrompts> | undefined;
    const open: OpenEngine = (...how) => {
      reading = openPrompts(folder!);
      // Where both fail, the engine tells more.
      reading.catch(() => {});
      return openInWorker(...how);
    };
    return onEngine(folder!, servingOptions(flags), flags, open, async (engine) =>
      serve(session, engine, await reading!, flags),
    );
  });
}

/** Prompts are read in threads of their own, too, which start while the model is loaded. */
async function openPrompts(folder: string): Promise<ThreadedPrompts> {
  const { ThreadedPrompts } = await import('../serve/prompt-threads.js');
  return ThreadedPrompts.open(folder);
}

async function serve(
  session: Session,
  engine: Engine,
  prompts: ThreadedPrompts,
  flags: ServeFlags,
): Promise<Outcome> {
  const { ApiServer } = await import('../serve/server.js');
  try {
    const model = { id: flags.modelName ?? engine.info.name, engine, prompts };
    return await serveUntilSignal(new ApiServer(model, serverOptions(flags, session)), model, session);
  } finally {
    await prompts.close();
  }
}

async function serveUntilSignal(
  server: ApiServer,
  { id, engine }: ServedModel,
  session: Session,
): Promise<Outcome> {
  const url = await server.listen();
  session.note(`${id} at ${url}/v1, chat page at ${url}/; Ctrl-C stops`);
  const started = performance.now();
  await stopSignal();
  session.note('no new requests; ends when those at work are done, or at once with another signal');
  await server.drain();
  const seconds = (performance.now() - started) / 1000;
  const { requests } = server;
  const { predictedDecoding, predictedLine } = await import('./predicted.js');
  const stats = await engine.stats();
  const { ranks } = engine.info;
  const { predicted, text: line } = await predictedLine('decoding', () =>
    predictedDecoding(engine.info, stats),
  );
  const texts = [`${requests} requests in ${duration(seconds)}`, line, describeRanks(engine.info, stats)];
  const more = { ...(predicted ? { predicted } : {}), ...(ranks ? { ranks, experts: stats.experts } : {}) };
  return {
    json: { url, model: id, requests, seconds, ...more },
    text: texts.filter((text) => text !== undefined).join('\n'),
  };
}

const serverOptions = (flags: ServeFlags, session: Session): ServerOptions => ({
  ...present({ apiKey: flags.apiKey, corsOrigin: flags.corsOrigin }),
  host: flags.host,
  port: flags.port,
  maxBatch: flags.maxBatch,
  maxQueue: flags.maxQueue,
  limits: { requestSeconds: flags.timeout },
  onFailure: (error) => session.note(`fathom: ${error instanceof Error ? error.stack : error}`),
});

function addNetworkOptions(command: Command): void {
  command
    .option('--host <address>', 'the address to listen on; 0.0.0.0 for all of this machine', '127.0.0.1')
    .option('--port <n>', 'the port to listen on; 0 for any free one', integer(0, 65_535), 8000)
    .addOption(
      new Option('--api-key <key>', 'what clients must send as Authorization: Bearer KEY').env(
        'FATHOM_API_KEY',
      ),
    )
    .option('--allow-public', 'serve other machines without a key')
    .option('--cors-origin <origin>', 'let web pages of this origin use the server; * for all')
    .option('--timeout <s>', 'longest time for one request', real(0.1, 1e6), 600);
}

function addModelOptions(command: Command): void {
  command
    .option('--model-name <id>', "the model's name in the API (default: that of its folder)")
    .option('--cache-tokens <n>', 'tokens that the cache holds over all sequences', integer(1))
    .option('--max-batch <n>', 'sequences that are generated together at most', integer(1, 4096), 64)
    .option('--max-queue <n>', 'sequences that wait at most; others get 429', integer(0, 100_000), 256);
}

const servingOptions = (flags: ServeFlags): EngineOptions => {
  const { cacheTokens, maxBatch, maxQueue } = flags;
  return { ...engineOptions(flags), ...present({ cacheTokens }), maxBatch, maxQueue };
};

/** The engine computes in a thread of its own, so that this one is free for the network. */
const openInWorker: OpenEngine = async (folder, options, ranks) => {
  const { openEngineInWorker } = await import('../infer/worker-engine.js');
  return openEngineInWorker(folder, options, ranks);
};

/** Resolves with the first signal that ends a server; with the second one the process exits at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    let came = false;
    const take = (_: NodeJS.Signals, number: number) => {
      if (came) process.exit(128 + number);
      came = true;
      resolve();
    };
    for (const signal of END_SIGNALS) process.on(signal, take);
  });
}
