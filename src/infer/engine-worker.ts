/** The thread that an engine computes in; see worker-engine.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Engine } from './engine.js';
import { EngineHost } from './engine-host.js';
import { type FromEngine, sendError, type ToEngine, type WorkerStart } from './engine-messages.js';
import { openLocalEngine } from './open-engine.js';

const port = parentPort!;
const send = (message: FromEngine) => port.postMessage(message);

async function open({ folder, options, ranks }: WorkerStart): Promise<Engine> {
  if (!ranks) return openLocalEngine(folder, options);
  const { openRanks } = await import('../expert/ranks.js');
  const { openOnRanks } = await import('./open-ranks.js');
  return (await openOnRanks(openRanks(ranks), folder, options, ranks)).engine!;
}

try {
  const engine = await open(workerData as WorkerStart);
  const host = new EngineHost(engine, send);
  port.on('message', (message: ToEngine) => {
    void host.take(message).then(() => message.type === 'close' && port.close());
  });
  void engine.died?.then((error) => send({ type: 'died', error: sendError(error) }));
  send({ type: 'opened', info: engine.info });
} catch (error) {
  send({ type: 'notOpened', error: sendError(error as Error) });
}
