/** Finds the end of a text that comes in pieces, and never gives out part of what ends it. */
export class StopFinder {
  /** What may be the beginning of a stop string. */
  private held = '';

  constructor(private readonly stops: readonly string[]) {}

  /** Takes a piece; gives what is certainly before any stop string. After `stopped`, nothing more may come. */
  push(piece: string): { text: string; stopped: boolean } {
    const text = this.held + piece;
    const ends = this.stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (ends.length > 0) {
      this.held = '';
      return { text: text.slice(0, Math.min(...ends)), stopped: true };
    }
    const certain = text.length - this.longestBeginning(text);
    this.held = text.slice(certain);
    return { text: text.slice(0, certain), stopped: false };
  }

  /** What is still held back, once no more comes. */
  end(): string {
    const text = this.held;
    this.held = '';
    return text;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  private longestBeginning(text: string): number {
    const most = Math.min(text.length, Math.max(0, ...this.stops.map(({ length }) => length - 1)));
    for (let length = most; length > 0; length--) {
      const end = text.slice(text.length - length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
