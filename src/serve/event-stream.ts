import type { Exchange } from './exchange.js';

/** Server-sent events as OpenAI streams them: one JSON object each, `[DONE]` at the end. */
export class EventStream {
  /**
   * @param stallSeconds a client that takes nothing for so long is given up
   */
  constructor(
    private readonly exchange: Exchange,
    private readonly stallSeconds: number,
  ) {
    exchange.response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // nginx would collect the events otherwise.
      'x-accel-buffering': 'no',
    });
  }

  /** Sends an object; resolves when there is room for the next one. @throws the reason why the exchange ended */
  async send(data: object): Promise<void> {
    if (!this.exchange.response.write(`data: ${JSON.stringify(data)}\n\n`)) await this.drained();
  }

  end(): void {
    this.exchange.response.end('data: [DONE]\n\n');
  }

  private async drained(): Promise<void> {
    const { response, signal } = this.exchange;
    const stalled = setTimeout(() => response.destroy(), this.stallSeconds * 1000);
    try {
      await new Promise<void>((resolve, reject) => {
        const aborted = () => reject(signal.reason);
        if (signal.aborted) aborted();
        signal.addEventListener('abort', aborted, { once: true });
        response.once('drain', () => {
          signal.removeEventListener('abort', aborted);
          resolve();
        });
      });
    } finally {
      clearTimeout(stalled);
    }
  }
}
