import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { Call } from './call.js';
import type {
  Engine,
  EngineInfo,
  EngineOptions,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  WeightPaging,
} from './engine.js';
import {
  type Answers,
  type FromEngine,
  type Question,
  receiveError,
  type ToEngine,
  type WorkerStart,
} from './engine-messages.js';

/**
 * Opens a model as `openEngine` does, in a thread of its own: this thread stays free while the model computes.
 * @throws UserError as `openEngine` does
 */
export async function openEngineInWorker(folder: string, options: EngineOptions = {}): Promise<Engine> {
  const workerData: WorkerStart = { folder, options };
  const worker = new Worker(new URL('./engine-worker.js', import.meta.url), { workerData });
  const [message] = (await once(worker, 'message')) as [FromEngine];
  if (message.type === 'opened') return new WorkerEngine(worker, message.info);
  await worker.terminate();
  throw receiveError((message as FromEngine & { type: 'notOpened' }).error);
}

interface Waiting {
  resolve(answer: Answers[Question]): void;
  reject(error: Error): void;
}

class WorkerEngine implements Engine {
  private readonly calls = new Map<number, Call>();
  private readonly questions = new Map<number, Waiting>();
  private ids = 0;
  private closing: Promise<void> | undefined;
  private failure: Error | undefined;

  constructor(
    private readonly worker: Worker,
    readonly info: EngineInfo,
  ) {
    worker.on('message', (message: FromEngine) => this.take(message));
    worker.on('error', (error) => this.fail(error));
    worker.on('exit', () => this.fail(new Error('the engine is closed')));
  }

  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent> {
    const id = this.ids++;
    const call = new Call(signal);
    this.calls.set(id, call);
    if (this.failure) this.end(id)?.fail(this.failure);
    else this.send({ type: 'generate', id, request });
    call.onCancel = () => this.send({ type: 'cancel', id });
    if (call.cancelled) call.onCancel();
    return call.events;
  }

  stats(): Promise<EngineStats> {
    return this.ask('stats');
  }

  paging(): Promise<WeightPaging> {
    return this.ask('paging');
  }

  private ask<Q extends Question>(question: Q): Promise<Answers[Q]> {
    if (this.failure) return Promise.reject(this.failure);
    const id = this.ids++;
    return new Promise((resolve, reject) => {
      // The answer to an id is of its question.
      this.questions.set(id, { resolve: resolve as Waiting['resolve'], reject });
      this.send({ type: 'ask', id, question });
    });
  }

  close(): Promise<void> {
    this.closing ??= this.finish();
    return this.closing;
  }

  private async finish(): Promise<void> {
    if (this.failure) return;
    const ended = once(this.worker, 'exit');
    this.send({ type: 'close' });
    await ended;
  }

  private take(message: FromEngine): void {
    if (message.type === 'events') {
      for (const { id, event } of message.events)
        (event.type === 'done' ? this.end(id) : this.calls.get(id))?.push(event);
    } else if (message.type === 'failed') this.end(message.id)?.fail(receiveError(message.error));
    else if (message.type === 'answer') {
      this.questions.get(message.id)?.resolve(message.answer);
      this.questions.delete(message.id);
    }
  }

  private end(id: number): Call | undefined {
    const call = this.calls.get(id);
    this.calls.delete(id);
    return call;
  }

  /** The thread is gone, and all calls with it. */
  private fail(error: Error): void {
    this.failure ??= error;
    for (const id of [...this.calls.keys()]) this.end(id)?.fail(this.failure);
    for (const { reject } of this.questions.values()) reject(this.failure);
    this.questions.clear();
  }

  private send(message: ToEngine): void {
    this.worker.postMessage(message);
  }
}
