import { ApiError, badRequest } from './errors.js';

/** Weight of the newest request in the mean time that a request takes. */
const NEWEST = 0.1;
/** Longest wait that a client is told, seconds; OpenAI's client heeds no more than a minute. */
const MAX_RETRY_SECONDS = 60;

/** Bounds the sequences that generate or wait, so that overload is answered at once instead of piling up. */
export class Admission {
  private present = 0;
  private meanSeconds = 1;

  /**
   * @param limit sequences at most, running and waiting together
   * @param parallel sequences that run together
   */
  constructor(
    private readonly limit: number,
    private readonly parallel: number,
  ) {}

  /** Sequences now, running and waiting. */
  get sequences(): number {
    return this.present;
  }

  /**
   * Takes room for `count` sequences.
   * @returns what gives it back, once
   * @throws ApiError 429 with Retry-After where there is no room now, 400 where there never is
   */
  enter(count: number): () => void {
    if (count > this.limit)
      throw badRequest(`The request asks for ${count} sequences, and this server takes ${this.limit}.`, 'n');
    if (this.present + count > this.limit) throw this.full();
    this.present += count;
    const entered = performance.now();
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.present -= count;
      this.meanSeconds += NEWEST * ((performance.now() - entered) / 1000 - this.meanSeconds);
    };
  }

  /** What a client is told that comes when all is taken; `Retry-After` is when a part of the queue will have run. */
  full(): ApiError {
    const seconds = Math.ceil((this.meanSeconds * this.present) / this.parallel / 2);
    const wait = String(Math.min(Math.max(seconds, 1), MAX_RETRY_SECONDS));
    return new ApiError(429, `The server is busy: its queue of requests is full. Try again in ${wait} s.`, {
      code: 'rate_limit_exceeded',
      headers: { 'retry-after': wait },
    });
  }
}
