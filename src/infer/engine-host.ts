import type { Engine, GenerateEvent } from './engine.js';
import { type FromEngine, sendError, type ToEngine } from './engine-messages.js';

/** The engine's side of its messages: does what they ask, in a worker thread or on another rank. */
export class EngineHost {
  private readonly calls = new Map<number, AbortController>();
  private outbox: (FromEngine & { type: 'events' })['events'] = [];

  constructor(
    private readonly engine: Engine,
    private readonly send: (message: FromEngine) => void,
  ) {}

  /** Never rejects. Closing the engine is done when this is. */
  async take(message: ToEngine): Promise<void> {
    if (message.type === 'generate') return this.generate(message);
    if (message.type === 'cancel') return this.calls.get(message.id)?.abort();
    if (message.type === 'ask') {
      const { id, question } = message;
      return this.send({ type: 'answer', id, answer: await this.engine[question]() });
    }
    await this.engine.close();
    this.flush();
    this.send({ type: 'closed' });
  }

  private async generate({ id, request }: ToEngine & { type: 'generate' }): Promise<void> {
    const abort = new AbortController();
    this.calls.set(id, abort);
    try {
      for await (const event of this.engine.generate(request, abort.signal)) this.sendEvent(id, event);
    } catch (error) {
      this.flush(); // what came before
      this.send({ type: 'failed', id, error: sendError(error as Error) });
    } finally {
      this.calls.delete(id);
    }
  }

  /** Sends an event together with all others of this turn: ticks come when the readers of all calls have had their turn. */
  private sendEvent(id: number, event: GenerateEvent): void {
    if (this.outbox.length === 0) process.nextTick(() => this.flush());
    this.outbox.push({ id, event });
  }

  private flush(): void {
    const events = this.outbox;
    this.outbox = [];
    if (events.length > 0) this.send({ type: 'events', events });
  }
}
