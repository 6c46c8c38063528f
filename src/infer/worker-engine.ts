import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { ServingRanks } from '../expert/ranks.js';
import type { Engine, EngineInfo, EngineOptions } from './engine.js';
import { type FromEngine, receiveError, type WorkerStart } from './engine-messages.js';
import { RemoteEngine } from './remote-engine.js';

/**
 * Opens a model as `openEngine` does, in a thread of its own: this thread stays free while the model computes.
 * @param ranks to open it as the first rank of an MPI job, which this process has started
 * @throws UserError as `openEngine` does
 */
export async function openEngineInWorker(
  folder: string,
  options: EngineOptions = {},
  ranks?: ServingRanks,
): Promise<Engine> {
  const workerData: WorkerStart = { folder, options, ranks };
  const worker = new Worker(new URL('./engine-worker.js', import.meta.url), { workerData });
  const [message] = (await once(worker, 'message')) as [FromEngine];
  if (message.type === 'opened') return new WorkerEngine(worker, message.info);
  await worker.terminate();
  throw receiveError((message as FromEngine & { type: 'notOpened' }).error);
}

class WorkerEngine extends RemoteEngine {
  constructor(
    private readonly worker: Worker,
    info: EngineInfo,
  ) {
    super(info, (message) => worker.postMessage(message));
    worker.on('message', (message: FromEngine) => this.take(message));
    worker.on('error', (error) => this.fail(error));
    worker.on('exit', () => this.fail(new Error('the engine is closed')));
  }

  protected override async finish(): Promise<void> {
    const ended = once(this.worker, 'exit');
    await super.finish();
    if (this.failure) await this.worker.terminate();
    else await ended;
  }
}
