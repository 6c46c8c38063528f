/**
 * Pages of the latent cache with reference counts. A sequence holds its pages, the prefix tree holds the pages that it
 * keeps, and a page is free again when nobody holds it. Which bytes a page has is the runner's affair.
 */
export class PageAllocator {
  /** Holders per page. */
  private readonly counts: Int32Array;
  /** Free pages: the first `available` entries. */
  private readonly free: Int32Array;
  private left: number;

  constructor(readonly total: number) {
    this.counts = new Int32Array(total);
    // Taken from the end: low numbers first, so that a small load touches little memory.
    this.free = Int32Array.from({ length: total }, (_, i) => total - 1 - i);
    this.left = total;
  }

  /** Pages that nobody holds. */
  get available(): number {
    return this.left;
  }

  get used(): number {
    return this.total - this.left;
  }

  /** A free page, held once; undefined where none is left. */
  take(): number | undefined {
    if (this.left === 0) return undefined;
    const page = this.free[--this.left]!;
    this.counts[page] = 1;
    return page;
  }

  /** One more holder of a page that somebody holds. */
  retain(page: number): void {
    this.checkHeld(page);
    this.counts[page]!++;
  }

  /** One holder less. */
  release(page: number): void {
    this.checkHeld(page);
    if (--this.counts[page]! === 0) this.free[this.left++] = page;
  }

  holders(page: number): number {
    return this.counts[page]!;
  }

  /**
   * Proves the invariant: every page is either free once and held by nobody, or held exactly as often as `held` names it.
   * @param held pages of all holders, each as often as it is held
   * @throws Error naming the first page for which it does not hold
   */
  verify(held: Iterable<number>): void {
    const expected = new Int32Array(this.total);
    for (const page of held) expected[page]!++;
    const isFree = new Uint8Array(this.total);
    for (const page of this.free.subarray(0, this.left)) {
      if (isFree[page]) throw new Error(`page ${page} is free twice`);
      isFree[page] = 1;
    }
    for (let page = 0; page < this.total; page++) {
      const count = this.counts[page]!;
      if (count !== expected[page]) {
        throw new Error(`page ${page} counts ${count} holders, but ${expected[page]} hold it`);
      }
      if ((count === 0) !== (isFree[page] === 1)) {
        throw new Error(`page ${page} has ${count} holders and is ${isFree[page] ? '' : 'not '}free`);
      }
    }
  }

  private checkHeld(page: number): void {
    if (!(this.counts[page]! > 0)) throw new Error(`page ${page} is held by nobody`);
  }
}
