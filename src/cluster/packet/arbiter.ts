/** Shares a busy port among priorities by weight: start-time fair queueing [Goyal, Vin and Cheng, SIGCOMM'96]. */
export class Arbiter {
  /** [C·K] virtual time at which each priority has used up what it sent; [C] that of the last packet. */
  private readonly finish: Float64Array;
  private readonly now: Float64Array;
  private readonly ordered: number[];

  /** @param weights of the priorities in use, most urgent first; the last holds for all that follow */
  constructor(
    private readonly weights: readonly number[],
    channels: number,
    private readonly priorities: number,
  ) {
    this.finish = new Float64Array(channels * priorities);
    this.now = new Float64Array(channels);
    this.ordered = Array.from({ length: priorities }, (_, k) => k);
  }

  /** @returns the priority to be tried as number k; k counts up from 0 at each turn of a port */
  order(channel: number, k: number): number {
    if (k === 0) this.ordered.sort((a, b) => this.start(channel, a) - this.start(channel, b) || a - b);
    return this.ordered[k]!;
  }

  private start(channel: number, priority: number): number {
    return Math.max(this.now[channel]!, this.finish[channel * this.priorities + priority]!);
  }

  sent(channel: number, priority: number, bytes: number): void {
    const start = this.start(channel, priority);
    this.now[channel] = start;
    const weight = this.weights[Math.min(priority, this.weights.length - 1)]!;
    this.finish[channel * this.priorities + priority] = start + bytes / weight;
  }
}
