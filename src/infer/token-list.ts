/** Token ids that grow at the end, as one array that kernels and comparisons can read. */
export class TokenList {
  private buffer: Int32Array;
  private count: number;

  constructor(tokens: ArrayLike<number>) {
    this.buffer = Int32Array.from(tokens);
    this.count = tokens.length;
  }

  get length(): number {
    return this.count;
  }

  /** i32 [length]; valid until the next `push`. */
  get view(): Int32Array {
    return this.buffer.subarray(0, this.count);
  }

  at(index: number): number {
    return this.buffer[index]!;
  }

  push(token: number): void {
    if (this.count === this.buffer.length) {
      const larger = new Int32Array(2 * this.count + 16);
      larger.set(this.buffer);
      this.buffer = larger;
    }
    this.buffer[this.count++] = token;
  }
}
