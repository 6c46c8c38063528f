import { type Command, Option } from 'commander';
import { duration } from '../report/units.js';
import type { ServedModel } from '../serve/model.js';
import type { ApiServer, ServerOptions } from '../serve/server.js';
import { present } from './engine.js';
import { addInferenceOptions, engineOptions, type InferenceFlags } from './inference.js';
import { integer, real } from './options.js';
import { type Outcome, runs, type Session } from './session.js';

interface ServeFlags extends InferenceFlags {
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
  runs<ServeFlags>(addInferenceOptions(command), async (session, flags, [folder]) => {
    const { ApiServer, checkExposure } = await import('../serve/server.js');
    checkExposure(flags.host, flags.apiKey, flags.allowPublic ?? false);
    const model = await openModel(folder!, flags);
    try {
      const server = new ApiServer(model, serverOptions(flags, session));
      return await serveUntilSignal(server, model, session);
    } finally {
      await Promise.all([model.engine.close(), model.prompts.close()]);
    }
  });
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
  const { predicted, text: line } = await predictedLine('decoding', () =>
    predictedDecoding(engine.info, stats),
  );
  const text = `${requests} requests in ${duration(seconds)}`;
  return {
    json: { url, model: id, requests, seconds, ...(predicted ? { predicted } : {}) },
    text: line ? `${text}\n${line}` : text,
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

/** The engine computes and prompts are read in threads of their own, so that this one is free for the network. */
async function openModel(folder: string, flags: ServeFlags): Promise<ServedModel> {
  const { openEngineInWorker } = await import('../infer/worker-engine.js');
  const { ThreadedPrompts } = await import('../serve/prompt-threads.js');
  const reading = ThreadedPrompts.open(folder);
  // Where both fail, the engine tells more.
  reading.catch(() => {});
  const { cacheTokens, maxBatch, maxQueue } = flags;
  const engine = await openEngineInWorker(folder, {
    ...engineOptions(flags),
    ...present({ cacheTokens }),
    maxBatch,
    maxQueue,
  });
  try {
    return { id: flags.modelName ?? engine.info.name, engine, prompts: await reading };
  } catch (error) {
    await engine.close();
    throw error;
  }
}

/** Resolves with the first signal that ends a server; with the second one the process exits at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    let came = false;
    const take = (_: NodeJS.Signals, number: number) => {
      if (came) process.exit(128 + number);
      came = true;
      resolve();
    };
    process.on('SIGINT', take).on('SIGTERM', take);
  });
}
