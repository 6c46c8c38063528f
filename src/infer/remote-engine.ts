import { Call } from './call.js';
import type {
  Engine,
  EngineInfo,
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
} from './engine-messages.js';

interface Waiting {
  resolve(answer: Answers[Question]): void;
  reject(error: Error): void;
}

/** An engine somewhere else, by the messages that go there and come back. */
export class RemoteEngine implements Engine {
  private readonly calls = new Map<number, Call>();
  private readonly questions = new Map<number, Waiting>();
  private ids = 0;
  private closing: Promise<void> | undefined;
  private closed: () => void = () => {};
  private hasClosed = false;
  protected failure: Error | undefined;
  private die: (error: Error) => void = () => {};
  readonly died = new Promise<Error>((resolve) => {
    this.die = resolve;
  });

  constructor(
    readonly info: EngineInfo,
    private readonly send: (message: ToEngine) => void,
  ) {}

  /** Requests under way. */
  get open(): number {
    return this.calls.size;
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

  protected async finish(): Promise<void> {
    if (this.failure) return;
    await new Promise<void>((resolve) => {
      this.closed = resolve;
      this.send({ type: 'close' });
    });
  }

  /** Takes what the engine says. */
  take(message: FromEngine): void {
    if (message.type === 'events') {
      for (const { id, event } of message.events)
        (event.type === 'done' ? this.end(id) : this.calls.get(id))?.push(event);
    } else if (message.type === 'failed') this.end(message.id)?.fail(receiveError(message.error));
    else if (message.type === 'answer') {
      this.questions.get(message.id)?.resolve(message.answer);
      this.questions.delete(message.id);
    } else if (message.type === 'died') this.fail(receiveError(message.error));
    else if (message.type === 'closed') {
      this.hasClosed = true;
      this.closed();
    }
  }

  /** The engine is gone, and all calls with it; by itself where it was not closed. */
  fail(error: Error): void {
    this.failure ??= error;
    for (const id of [...this.calls.keys()]) this.end(id)?.fail(this.failure);
    for (const { reject } of this.questions.values()) reject(this.failure);
    this.questions.clear();
    this.closed();
    if (!this.hasClosed) this.die(this.failure);
  }

  private end(id: number): Call | undefined {
    const call = this.calls.get(id);
    this.calls.delete(id);
    return call;
  }
}
