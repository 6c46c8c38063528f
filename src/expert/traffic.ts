/** What one rank has moved, and how long that took. Bytes of payloads and of what goes with them (choices, weights, headers). */
export class Traffic {
  /** Sent to other nodes. */
  acrossPayloadBytes = 0;
  acrossOtherBytes = 0;
  /** Rows of other ranks of the node that this rank has read: forwarded tokens, and partial sums. */
  withinPayloadBytes = 0;
  withinOtherBytes = 0;
  /** Copies of tokens sent to other nodes. */
  copiesAcross = 0;
  messages = 0;
  /** Coding and decoding, with the copies that they are part of. */
  codecSeconds = 0;
  /** Blocked until messages or other ranks were there. */
  waitSeconds = 0;
  /** In dispatch and combine altogether. */
  seconds = 0;

  /** A copy, and zeros from here on. */
  take(): Traffic {
    const copy = Object.assign(new Traffic(), this);
    Object.assign(this, new Traffic());
    return copy;
  }

  /** Runs `work` and adds the time that it took to `what`. */
  timed<T>(what: 'codecSeconds' | 'waitSeconds' | 'seconds', work: () => T): T {
    const started = performance.now();
    try {
      return work();
    } finally {
      this[what] += (performance.now() - started) / 1000;
    }
  }
}
