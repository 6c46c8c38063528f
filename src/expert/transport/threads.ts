import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import {
  COUNTERS,
  type Counter,
  DONE,
  type Elements,
  type Group,
  type Pending,
  type Placement,
  type SharedMemory,
  type WatchedTransport,
} from './transport.js';

/** What one thread needs to be a rank; see `connectThreads`. */
export interface ThreadEnd {
  rank: number;
  size: number;
  perNode: number;
  /** To every rank; one's own entry is absent. */
  ports: (MessagePort | undefined)[];
  /** i32 [size]: messages ever posted to each rank. */
  posted: SharedArrayBuffer;
}

/** A message on its way: to a tag of a rank, or of a group's member. */
interface Letter {
  tag: string;
  data: Uint8Array;
}

/**
 * The ends of ranks that are threads of one process; each goes to its worker in `workerData` with `transferList: ports`.
 * @param perNode ranks that form a node and share memory
 */
export function connectThreads(size: number, perNode: number): ThreadEnd[] {
  const posted = new SharedArrayBuffer(4 * size);
  const ends = Array.from({ length: size }, (_, rank) => ({
    rank,
    size,
    perNode,
    posted,
    ports: Array<MessagePort | undefined>(size).fill(undefined),
  }));
  for (let a = 0; a < size; a++) {
    for (let b = a + 1; b < size; b++) {
      const { port1, port2 } = new MessageChannel();
      ends[a]!.ports[b] = port1 as unknown as MessagePort;
      ends[b]!.ports[a] = port2 as unknown as MessagePort;
    }
  }
  return ends;
}

/** Ranks as threads: messages are copied into shared memory and posted, so that a send is done at once. */
export class ThreadTransport implements WatchedTransport {
  readonly kind = 'threads';
  readonly rank: number;
  readonly placement: Placement;
  readonly world: Group;
  private readonly posted: Int32Array;
  private readonly letters = new Map<string, Uint8Array[]>();
  private groups = 0;
  private shares = 0;

  constructor(private readonly end: ThreadEnd) {
    const { rank, size, perNode, posted } = end;
    this.rank = rank;
    this.placement = { size, perNode, hosts: Array<string>(size).fill('this process') };
    this.posted = new Int32Array(posted);
    const members = Array.from({ length: size }, (_, r) => r);
    this.world = new ThreadGroup(this, members, rank, 'world');
  }

  split(colour: number): Group {
    const { size } = this.placement;
    const colours = new Int32Array(size);
    this.world.allGather(Int32Array.of(colour), colours, Array<number>(size).fill(1)).wait();
    const members = this.world.members.filter((rank) => colours[rank] === colour);
    return new ThreadGroup(this, members, members.indexOf(this.rank), `group${this.groups++}`);
  }

  share(bytes: number, ranks: number): SharedMemory {
    const first = this.rank - (this.rank % ranks);
    const tag = `share${this.shares++}`;
    const stride = Math.ceil(bytes / 64) * 64;
    if (this.rank !== first)
      return new ThreadMemory(this.take(first, tag).buffer as SharedArrayBuffer, stride);
    const memory = new SharedArrayBuffer(stride * ranks + 4 * COUNTERS);
    for (let rank = first + 1; rank < first + ranks; rank++) this.post(rank, tag, new Uint8Array(memory));
    return new ThreadMemory(memory, stride);
  }

  send(data: Elements, to: number, tag: number): Pending {
    this.mail(data, to, `message${tag}`);
    return DONE;
  }

  receive(into: Elements, from: number, tag: number, arrived?: Counter): Pending {
    return this.expect(into, from, `message${tag}`, arrived);
  }

  listen(into: Uint8Array, from: number, tag: number): Pending {
    return this.expect(into, from, `message${tag}`);
  }

  news(): number {
    return Atomics.load(this.posted, this.rank);
  }

  awaitNews(since: number, milliseconds: number): void {
    Atomics.wait(this.posted, this.rank, since, milliseconds);
  }

  silence(_rank: number): number {
    return 0;
  }

  lost(): number[] {
    return [];
  }

  close(): void {
    for (const port of this.end.ports) port?.close();
  }

  abort(code: number): void {
    process.exit(code);
  }

  /** Copies `data` and posts it. */
  mail(data: Elements, to: number, tag: string): void {
    const copy = new Uint8Array(new SharedArrayBuffer(data.byteLength));
    copy.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.post(to, tag, copy);
  }

  /** A receive that is carried out when it is waited for, or found there. */
  expect(into: Elements, from: number, tag: string, arrived?: Counter): Pending {
    const take = () => {
      const data = this.take(from, tag);
      new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(data);
      arrived?.add(1);
      return data.length;
    };
    return once(take, () => this.has(from, tag));
  }

  private has(from: number, tag: string): boolean {
    this.collect();
    return (this.letters.get(`${from}/${tag}`)?.length ?? 0) > 0;
  }

  private post(to: number, tag: string, data: Uint8Array): void {
    if (to === this.rank) {
      this.keep(to, { tag, data });
      return;
    }
    this.end.ports[to]!.postMessage({ tag, data } satisfies Letter);
    Atomics.add(this.posted, to, 1);
    Atomics.notify(this.posted, to);
  }

  /** The next message of a rank under a tag, waiting for it. */
  private take(from: number, tag: string): Uint8Array {
    const key = `${from}/${tag}`;
    while (true) {
      const seen = Atomics.load(this.posted, this.rank);
      const waiting = this.letters.get(key);
      if (waiting?.length) return waiting.shift()!;
      if (!this.collect()) Atomics.wait(this.posted, this.rank, seen);
    }
  }

  private collect(): boolean {
    let any = false;
    this.end.ports.forEach((port, from) => {
      if (!port) return;
      for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
        this.keep(from, got.message as Letter);
        any = true;
      }
    });
    return any;
  }

  private keep(from: number, { tag, data }: Letter): void {
    const key = `${from}/${tag}`;
    const list = this.letters.get(key);
    if (list) list.push(data);
    else this.letters.set(key, [data]);
  }
}

class ThreadCounter implements Counter {
  constructor(
    private readonly counters: Int32Array,
    private readonly index: number,
  ) {}

  add(delta: number): void {
    Atomics.add(this.counters, this.index, delta);
    Atomics.notify(this.counters, this.index);
  }

  wait(target: number): void {
    this.reach(target, Number.POSITIVE_INFINITY);
  }

  reach(target: number, milliseconds: number): boolean {
    for (;;) {
      const seen = Atomics.load(this.counters, this.index);
      if (((seen - target) | 0) >= 0) return true;
      if (Atomics.wait(this.counters, this.index, seen, milliseconds) === 'timed-out') return false;
    }
  }
}

/** The counters lie behind the pieces. */
class ThreadMemory implements SharedMemory {
  readonly bytes: Uint8Array;

  constructor(
    private readonly memory: SharedArrayBuffer,
    readonly stride: number,
  ) {
    this.bytes = new Uint8Array(memory, 0, memory.byteLength - 4 * COUNTERS);
  }

  counter(index: number): Counter {
    return new ThreadCounter(new Int32Array(this.memory, this.bytes.length, COUNTERS), index);
  }
}

/** Collectives from messages, in the order of the members, so that sums have a fixed order. */
class ThreadGroup implements Group {
  private calls = 0;

  constructor(
    private readonly transport: ThreadTransport,
    readonly members: readonly number[],
    readonly index: number,
    private readonly name: string,
  ) {}

  barrier(): Pending {
    const ones = new Uint8Array(this.members.length);
    return this.allGather(
      ones.slice(0, 1),
      ones,
      this.members.map(() => 1),
    );
  }

  broadcast(data: Elements, root: number): Pending {
    const tag = this.nextTag();
    if (this.index !== root) return this.transport.expect(data, this.members[root]!, tag);
    for (const member of this.members)
      if (member !== this.transport.rank) this.transport.mail(data, member, tag);
    return DONE;
  }

  allReduce(data: Float32Array | Float64Array | Int32Array, operation: 'sum' | 'max' | 'min'): Pending {
    const n = this.members.length;
    const every = new (data.constructor as new (length: number) => typeof data)(data.length * n);
    const gathered = this.allGather(
      data.slice(),
      every,
      this.members.map(() => data.length),
    );
    return after(gathered, () => {
      for (let i = 0; i < data.length; i++) data[i] = reduce(every, i, data.length, operation);
    });
  }

  reduceScatter(input: Float32Array, output: Float32Array, counts: readonly number[]): Pending {
    const own = counts[this.index]!;
    const parts = new Float32Array(own * counts.length);
    const exchanged = this.allToAll(
      input,
      counts,
      parts,
      counts.map(() => own),
    );
    return after(exchanged, () => {
      for (let i = 0; i < own; i++) output[i] = reduce(parts, i, own, 'sum');
    });
  }

  allGather(input: Elements, output: Elements, counts: readonly number[]): Pending {
    const tag = this.nextTag();
    for (const member of this.members) this.transport.mail(input, member, tag);
    return this.collect(output, counts, tag);
  }

  allToAll(
    input: Elements,
    inputCounts: readonly number[],
    output: Elements,
    outputCounts: readonly number[],
  ): Pending {
    const tag = this.nextTag();
    let at = 0;
    this.members.forEach((member, i) => {
      this.transport.mail(input.subarray(at, at + inputCounts[i]!), member, tag);
      at += inputCounts[i]!;
    });
    return this.collect(output, outputCounts, tag);
  }

  private collect(output: Elements, counts: readonly number[], tag: string): Pending {
    let at = 0;
    const receives = this.members.map((member, i) => {
      const part = output.subarray(at, at + counts[i]!);
      at += counts[i]!;
      return this.transport.expect(part, member, tag);
    });
    const wait = () => receives.reduce((sum, r) => sum + r.wait(), 0);
    return once(wait, () => receives.every((receive) => receive.done));
  }

  private nextTag(): string {
    return `${this.name}/${this.calls++}`;
  }
}

/** Reduces element `i` of pieces of `stride` elements, first piece first. */
function reduce(
  pieces: Float32Array | Float64Array | Int32Array,
  i: number,
  stride: number,
  operation: 'sum' | 'max' | 'min',
): number {
  let value = pieces[i]!;
  for (let at = i + stride; at < pieces.length; at += stride) {
    const next = pieces[at]!;
    value =
      operation === 'sum'
        ? value + next
        : operation === 'max'
          ? Math.max(value, next)
          : Math.min(value, next);
  }
  return value;
}

/** `first`, then `finish`, once. */
const after = (first: Pending, finish: () => void): Pending => {
  const run = () => {
    const bytes = first.wait();
    finish();
    return bytes;
  };
  return once(run, () => first.done);
};

/**
 * Carries `run` out once, when it is waited for or would not block.
 * @param run gives the bytes received
 * @param ready whether it would not block
 */
function once(run: () => number, ready: () => boolean): Pending {
  let bytes: number | undefined;
  const wait = () => {
    bytes ??= run();
    return bytes;
  };
  return {
    wait,
    get done() {
      if (bytes === undefined && ready()) wait();
      return bytes !== undefined;
    },
  };
}
