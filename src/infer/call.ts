import type { GenerateEvent } from './engine.js';
import { EventQueue } from './event-queue.js';

/** One call of `generate`: its events on the way to the reader, and the reader's leave on the way back. */
export class Call {
  readonly events = new EventQueue(() => this.cancel());
  /** Whether the reader has gone or the signal was aborted. */
  cancelled: boolean;
  /** What `cancelled` has to stop. */
  onCancel: (() => void) | undefined;

  constructor(private readonly signal: AbortSignal | undefined) {
    this.cancelled = signal?.aborted ?? false;
    signal?.addEventListener('abort', this.cancel);
  }

  push(event: GenerateEvent): void {
    this.events.push(event);
    if (event.type === 'done') this.forget();
  }

  fail(error: Error): void {
    this.events.fail(error);
    this.forget();
  }

  private readonly cancel = (): void => {
    this.cancelled = true;
    this.onCancel?.();
  };

  private forget(): void {
    this.onCancel = undefined;
    this.signal?.removeEventListener('abort', this.cancel);
  }
}
