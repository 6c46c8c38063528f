/**
 * Flows over links, as the flow engine takes them. Legend: F flows, L links, P entries of all paths together.
 * A link is whatever has a capacity: a channel of a network, or the cap of a flow.
 */
export interface Flows {
  readonly count: number;
  /** [L] bytes per second. */
  readonly capacity: Float64Array;
  /** [F + 1], [P]: links of each flow's path. */
  readonly offsets: Int32Array;
  readonly links: Int32Array;
  /** [P] how much of the flow's rate passes: less than 1 where it is sprayed; null where all is. */
  readonly shares: Float64Array | null;
  /** [F] */
  readonly bytes: Float64Array;
  /** [F] of the fair share; null where all are 1. */
  readonly weights: Float64Array | null;
  /** [F] seconds before the first byte arrives, once the flow has begun. */
  readonly latency: Float64Array;
  /** [F] seconds: the earliest begin, or the wait after the last flow of `after`. */
  readonly start: Float64Array;
  /** [F + 1], [...]: flows that must have ended before this one begins; null where there are none. */
  readonly after: { readonly offsets: Int32Array; readonly flows: Int32Array } | null;
}

/** A flow as a caller gives it. */
export interface FlowFields {
  /** Links; none for a flow within one place. */
  path: ArrayLike<number>;
  /** Of the rate, for each link of the path; 1 by default. */
  shares?: ArrayLike<number>;
  bytes: number;
  latency?: number;
  start?: number;
  weight?: number;
  /** Bytes per second that this flow never exceeds. */
  cap?: number;
  after?: ArrayLike<number>;
}

/** A typed array that grows. */
class Growing<T extends Int32Array | Float64Array> {
  length = 0;
  constructor(
    private readonly make: (length: number) => T,
    private array: T = make(1024),
  ) {}

  push(value: number): void {
    if (this.length === this.array.length) {
      const larger = this.make(2 * this.length);
      larger.set(this.array);
      this.array = larger;
    }
    this.array[this.length++] = value;
  }

  taken(): T {
    return this.array.subarray(0, this.length) as T;
  }
}

const integers = () => new Growing((length) => new Int32Array(length));
const reals = () => new Growing((length) => new Float64Array(length));

/** Collects flows over links that are known beforehand. */
export class FlowList {
  private readonly capacity = reals();
  private readonly offsets = integers();
  private readonly links = integers();
  private readonly shares = reals();
  private readonly bytes = reals();
  private readonly weights = reals();
  private readonly latency = reals();
  private readonly start = reals();
  private readonly afterOffsets = integers();
  private readonly after = integers();
  private sprayed = false;
  private weighted = false;

  /** @param capacity [L] bytes per second */
  constructor(capacity: Float64Array) {
    for (const rate of capacity) this.capacity.push(rate);
    this.offsets.push(0);
    this.afterOffsets.push(0);
  }

  get count(): number {
    return this.bytes.length;
  }

  /** @returns the new flow */
  add({ path, shares, bytes, latency = 0, start = 0, weight = 1, cap, after = [] }: FlowFields): number {
    if (!(bytes >= 0 && start >= 0 && latency >= 0 && weight > 0)) {
      throw new RangeError(
        `a flow needs bytes, start and latency that are not negative and a positive weight, got ${bytes}, ${start}, ${latency} and ${weight}`,
      );
    }
    for (let i = 0; i < path.length; i++) this.addEntry(path[i]!, shares ? shares[i]! : 1);
    if (cap !== undefined) {
      this.capacity.push(cap);
      this.addEntry(this.capacity.length - 1, 1);
    }
    if (shares) this.sprayed = true;
    if (weight !== 1) this.weighted = true;
    this.offsets.push(this.links.length);
    this.bytes.push(bytes);
    this.latency.push(latency);
    this.start.push(start);
    this.weights.push(weight);
    for (let i = 0; i < after.length; i++) this.after.push(after[i]!);
    this.afterOffsets.push(this.after.length);
    return this.bytes.length - 1;
  }

  private addEntry(link: number, share: number): void {
    this.links.push(link);
    this.shares.push(share);
  }

  build(): Flows {
    return {
      count: this.bytes.length,
      capacity: this.capacity.taken(),
      offsets: this.offsets.taken(),
      links: this.links.taken(),
      shares: this.sprayed ? this.shares.taken() : null,
      bytes: this.bytes.taken(),
      weights: this.weighted ? this.weights.taken() : null,
      latency: this.latency.taken(),
      start: this.start.taken(),
      after: this.after.length > 0 ? { offsets: this.afterOffsets.taken(), flows: this.after.taken() } : null,
    };
  }
}
