import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiError, sendJson } from './errors.js';

/** The client has gone away: nobody is left to answer. */
export class ClientGone extends Error {}

/**
 * One request and its response. `signal` aborts as soon as nobody waits for the answer any more: the client has gone, time
 * is up, or the answer is complete.
 */
export class Exchange {
  readonly id = randomUUID();
  readonly startedSeconds = performance.now() / 1000;
  private readonly controller = new AbortController();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
  ) {
    // Every sequence of a request listens.
    setMaxListeners(0, this.signal);
    response.once('close', () => this.abort(new ClientGone()));
    response.setHeader('x-request-id', this.id);
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Ends the work of this request after so many seconds with status 504. */
  limitTime(seconds: number): void {
    const late = () =>
      this.abort(new ApiError(504, `The answer took longer than the ${seconds} s that this server allows.`));
    this.timer = setTimeout(late, seconds * 1000);
  }

  abort(reason: Error): void {
    clearTimeout(this.timer);
    this.controller.abort(reason);
  }

  /** Tells the client why there is no answer, or no more of it. */
  fail({ status, body, details }: ApiError): void {
    if (this.response.destroyed || this.response.writableEnded) return;
    if (this.response.headersSent) this.response.end(`data: ${JSON.stringify(body)}\n\n`);
    else sendJson(this.response, status, body, details.headers);
  }

  /** Resolves when the system has taken the whole answer, or the client is gone; one that takes nothing is given up. */
  async flushed(stallSeconds: number): Promise<void> {
    const { response } = this;
    if (response.writableFinished || response.destroyed) return;
    const stalled = setTimeout(() => response.destroy(), stallSeconds * 1000);
    await new Promise((resolve) => response.once('finish', resolve).once('close', resolve));
    clearTimeout(stalled);
  }
}
