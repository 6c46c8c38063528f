import type { Elements, Group, Pending, Transport } from '../transport/transport.js';

/**
 * Collectives of ranks on several planes: within a node by its own means, and between nodes from each rank to those with its
 * place, so that every plane carries its share and nothing crosses planes. Legend: N nodes of the group, m members of each.
 */
export class PlaneGroup implements Group {
  readonly index: number;
  /** Members with this rank's place, by node, and this rank's node among them. */
  private readonly line: number[];
  private readonly at: number;
  /** Members of a node, and this rank's number there. */
  private readonly m: number;
  private readonly own: number;

  /** @param inner this rank's node's members @param tag of the group's messages */
  constructor(
    private readonly transport: Pick<Transport, 'rank' | 'send' | 'receive'>,
    readonly members: readonly number[],
    private readonly inner: Group,
    private readonly tag: number,
  ) {
    this.index = members.indexOf(transport.rank);
    this.m = inner.members.length;
    this.own = this.index % this.m;
    this.line = members.filter((_, i) => i % this.m === this.own);
    this.at = Math.floor(this.index / this.m);
  }

  barrier(): Pending {
    const entered = this.inner.barrier();
    return this.lazily(() => {
      entered.wait();
      this.exchange(new Uint8Array(1), () => new Uint8Array(1));
      return 0;
    });
  }

  broadcast(data: Elements, root: number): Pending {
    return this.lazily(() => {
      if (root % this.m === this.own) {
        const node = Math.floor(root / this.m);
        const others = this.line.filter((_, n) => n !== this.at);
        if (node === this.at) for (const to of others) this.transport.send(data, to, this.tag);
        else this.transport.receive(data, this.line[node]!, this.tag).wait();
      }
      return this.inner.broadcast(data, root % this.m).wait();
    });
  }

  allReduce(data: Float32Array | Float64Array | Int32Array, operation: 'sum' | 'max' | 'min'): Pending {
    const reduced = this.inner.allReduce(data, operation);
    const bounds = Array.from({ length: this.m + 1 }, (_, i) => Math.floor((i * data.length) / this.m));
    return this.lazily(() => {
      reduced.wait();
      const slice = data.slice(bounds[this.own]!, bounds[this.own + 1]!);
      const parts = this.exchange(slice, () => slice.slice());
      const total = combine(parts, operation);
      const counts = bounds.slice(1).map((end, i) => end - bounds[i]!);
      return this.inner.allGather(total, data, counts).wait();
    });
  }

  reduceScatter(input: Float32Array, output: Float32Array, counts: readonly number[]): Pending {
    const { m } = this;
    const places = this.perPlace(counts);
    const packed = new Float32Array(input.length);
    this.reorder(counts, (from, to, count) => packed.set(input.subarray(from, from + count), to));
    const mine = new Float32Array(places[this.own]!);
    const reduced = this.inner.reduceScatter(packed, mine, places);
    return this.lazily(() => {
      reduced.wait();
      const starts = this.line.map((_, n) =>
        sum(this.line.slice(0, n).map((_, k) => counts[k * m + this.own]!)),
      );
      const part = (n: number) => mine.subarray(starts[n]!, starts[n]! + counts[n * m + this.own]!);
      const parts = this.exchange(part, () => new Float32Array(output.length), part(this.at));
      output.set(combine(parts, 'sum'));
      return output.byteLength;
    });
  }

  allGather(input: Elements, output: Elements, counts: readonly number[]): Pending {
    const { m } = this;
    return this.lazily(() => {
      const type = input instanceof Uint8Array ? Uint8Array : input.constructor;
      const like = (length: number) => new (type as new (n: number) => Elements)(length);
      const parts = this.exchange(input, (n) => like(counts[n * m + this.own]!));
      const mine = like(sum(parts.map((part) => part.length)));
      let at = 0;
      for (const part of parts) {
        mine.set(part, at);
        at += part.length;
      }
      const packed = like(output.length);
      const bytes = this.inner.allGather(mine, packed, this.perPlace(counts)).wait();
      this.reorder(counts, (to, from, count) => output.set(packed.subarray(from, from + count), to));
      return bytes;
    });
  }

  allToAll(
    input: Elements,
    inputCounts: readonly number[],
    output: Elements,
    outputCounts: readonly number[],
  ): Pending {
    const starts = (counts: readonly number[]) => counts.map((_, i) => sum(counts.slice(0, i)));
    const [from, into] = [starts(inputCounts), starts(outputCounts)];
    const receives = this.members.map((member, i) => {
      const part = output.subarray(into[i]!, into[i]! + outputCounts[i]!);
      return member === this.transport.rank ? undefined : this.transport.receive(part, member, this.tag);
    });
    const sends = this.members.map((member, i) => {
      const part = input.subarray(from[i]!, from[i]! + inputCounts[i]!);
      if (member !== this.transport.rank) return this.transport.send(part, member, this.tag);
      output.set(part, into[i]!);
      return undefined;
    });
    return this.lazily(() => {
      for (const send of sends) send?.wait();
      return receives.reduce((bytes, receive) => bytes + (receive?.wait() ?? 0), 0);
    });
  }

  /** Sends a piece to every rank of the line and gives what each has sent, by node; `own` stands for this rank's. */
  private exchange<T extends Elements>(
    piece: T | ((node: number) => T),
    memory: (node: number) => T,
    own = piece as T,
  ): T[] {
    const others = this.line.flatMap((_, n) => (n === this.at ? [] : [n]));
    const parts = this.line.map((_, n) => (n === this.at ? own : memory(n)));
    const receives = others.map((n) => this.transport.receive(parts[n]!, this.line[n]!, this.tag));
    for (const n of others) {
      this.transport.send(typeof piece === 'function' ? piece(n) : piece, this.line[n]!, this.tag);
    }
    for (const receive of receives) receive.wait();
    return parts;
  }

  /** Elements of all nodes' members with each place. */
  private perPlace(counts: readonly number[]): number[] {
    return Array.from({ length: this.m }, (_, place) => sum(counts.filter((_, i) => i % this.m === place)));
  }

  /** Walks over the pieces of members as they lie node by node, and as they lie place by place. */
  private reorder(
    counts: readonly number[],
    move: (byNode: number, byPlace: number, count: number) => void,
  ): void {
    const starts = counts.map((_, i) => sum(counts.slice(0, i)));
    let at = 0;
    for (let place = 0; place < this.m; place++) {
      for (let i = place; i < counts.length; i += this.m) {
        move(starts[i]!, at, counts[i]!);
        at += counts[i]!;
      }
    }
  }

  private lazily(run: () => number): Pending {
    let bytes: number | undefined;
    return {
      get done() {
        return bytes !== undefined;
      },
      wait: () => {
        bytes ??= run();
        return bytes;
      },
    };
  }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Element by element, in the order of the parts. */
function combine<T extends Float32Array | Float64Array | Int32Array>(
  parts: readonly T[],
  operation: 'sum' | 'max' | 'min',
): T {
  const total = parts[0]!.slice() as T;
  for (const part of parts.slice(1)) {
    for (let i = 0; i < total.length; i++) {
      const [a, b] = [total[i]!, part[i]!];
      total[i] = operation === 'sum' ? a + b : operation === 'max' ? Math.max(a, b) : Math.min(a, b);
    }
  }
  return total;
}
