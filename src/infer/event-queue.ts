import type { GenerateEvent } from './engine.js';

/**
 * Events between the engine, which never waits, and a reader. Pieces of text that nobody has read yet are joined, so a slow
 * reader finds few large ones.
 */
export class EventQueue implements AsyncIterableIterator<GenerateEvent> {
  private readonly events: GenerateEvent[] = [];
  private failure: Error | undefined;
  private ended = false;
  private wake: (() => void) | undefined;

  /** @param onReturn called when the reader goes away before the end */
  constructor(private readonly onReturn: () => void) {}

  push(event: GenerateEvent): void {
    if (this.ended) return;
    const last = this.events.at(-1);
    if (event.type === 'text' && last?.type === 'text') join(last, event);
    else this.events.push(event);
    this.ended = event.type === 'done';
    this.wake?.();
  }

  fail(error: Error): void {
    if (this.ended) return;
    this.failure = error;
    this.ended = true;
    this.wake?.();
  }

  async next(): Promise<IteratorResult<GenerateEvent, undefined>> {
    while (this.events.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      this.wake = undefined;
    }
    const event = this.events.shift();
    if (event) return { done: false, value: event };
    if (this.failure) {
      const error = this.failure;
      this.failure = undefined;
      throw error;
    }
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<GenerateEvent, undefined>> {
    if (!this.ended) {
      this.ended = true;
      this.onReturn();
    }
    this.events.length = 0;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

type TextEvent = Extract<GenerateEvent, { type: 'text' }>;

/** Adds `more` to an event that nobody has read. */
function join(event: TextEvent, more: TextEvent): void {
  event.text += more.text;
  event.ids.push(...more.ids);
  if (more.tokens) event.tokens = [...(event.tokens ?? []), ...more.tokens];
}
