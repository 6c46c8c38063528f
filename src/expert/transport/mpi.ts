import { statfsSync } from 'node:fs';
import { ReportedError, UserError } from '../../errors.js';
import { loadMpiAddon, type MpiAddon } from './addon.js';
import {
  COUNTERS,
  type Counter,
  type Elements,
  type Group,
  type Pending,
  type Placement,
  type SharedMemory,
  type WatchedTransport,
} from './transport.js';

export interface MpiOptions {
  /** Ranks of a node; by default all of a host. */
  perNode?: number | undefined;
  /** Seconds of silence after which a rank is taken for lost; 15 by default, 0 for never. */
  silenceSeconds?: number | undefined;
  /** Whether ranks with one place in their nodes have a plane of the network for themselves (`planes/transport.ts`). */
  planes?: boolean | undefined;
}

const WORLD = 0;
export const SILENCE_SECONDS = 15;
/** A counter has a cache line for itself: the count, and how many sleep until it changes. */
const COUNTER_WORDS = 16;
const COUNTER_BYTES = 4 * COUNTER_WORDS * COUNTERS;

/** Starts MPI in this process: one rank of the job that `mpirun` or `srun` launched. @throws UserError */
export function openMpi(options: MpiOptions = {}): MpiTransport {
  const addon = loadMpiAddon();
  const { rank, size, hosts, library } = named(() => addon.start());
  const silenceSeconds = options.silenceSeconds ?? SILENCE_SECONDS;
  addon.setSilenceLimit(silenceSeconds);
  const perNode = options.perNode ?? ranksPerHost(hosts);
  try {
    checkNodes(hosts, perNode);
  } catch (error) {
    addon.finish();
    throw rank === 0 ? error : new ReportedError((error as Error).message);
  }
  if (options.planes) addon.usePlanes(perNode);
  return new MpiTransport(addon, rank, { size, perNode, hosts }, library, silenceSeconds);
}

/** Ranks of each host. @throws UserError unless hosts have as many and their ranks are neighbours */
export function ranksPerHost(hosts: readonly string[]): number {
  const first = hosts.findIndex((host) => host !== hosts[0]);
  return first < 0 ? hosts.length : first;
}

function checkNodes(hosts: readonly string[], perNode: number): void {
  if (hosts.length % perNode !== 0) {
    throw new UserError(
      `${hosts.length} ranks are no whole number of nodes of ${perNode}; start as many on every host (mpirun --map-by ppr:N:node)`,
    );
  }
  const stray = hosts.findIndex((host, rank) => host !== hosts[rank - (rank % perNode)]);
  if (stray < 0) return;
  throw new UserError(
    `rank ${stray} on ${hosts[stray]} does not share memory with rank ${stray - (stray % perNode)} on ` +
      `${hosts[stray - (stray % perNode)]}; start as many ranks on every host, one host after the other`,
  );
}

/** MPI's own words become an error for users. */
function named<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

export class MpiTransport implements WatchedTransport {
  readonly kind = 'mpi';
  readonly world: Group;
  /** Communicators of neighbours that share memory, by their number. */
  private readonly neighbours = new Map<number, number>();

  constructor(
    readonly addon: MpiAddon,
    readonly rank: number,
    readonly placement: Placement,
    /** Name and version of the MPI library. */
    readonly library: string,
    readonly silenceSeconds: number,
  ) {
    this.world = new MpiGroup(addon, WORLD, all(placement.size), rank);
  }

  split(colour: number): Group {
    const { size } = this.placement;
    const colours = new Int32Array(size);
    this.world.allGather(Int32Array.of(colour), colours, all(size).fill(1)).wait();
    const members = all(size).filter((rank) => colours[rank] === colour);
    const comm = named(() => this.addon.split(WORLD, colour, this.rank));
    return new MpiGroup(this.addon, comm, members, members.indexOf(this.rank));
  }

  share(bytes: number, ranks: number): SharedMemory {
    const comm =
      this.neighbours.get(ranks) ??
      named(() => this.addon.split(WORLD, Math.floor(this.rank / ranks), this.rank));
    this.neighbours.set(ranks, comm);
    const stride = Math.ceil((bytes + COUNTER_BYTES) / 64) * 64;
    const buffer = this.allocateShared(comm, stride, ranks);
    const memory = new MpiMemory(this.addon, buffer, stride);
    memory.clear(this.rank % ranks);
    new MpiGroup(this.addon, comm, [], 0).barrier().wait();
    return memory;
  }

  /** @throws UserError with what the host has, where that is too little */
  private allocateShared(comm: number, bytes: number, ranks: number): ArrayBuffer {
    try {
      return this.addon.sharedMemory(comm, bytes);
    } catch (error) {
      throw new UserError(
        `${ranks} ranks share ${ranks} times ${bytes} bytes of memory, which this host does not give ` +
          `(${freeShared()}; MPI says: ${(error as Error).message}); give it more, take smaller micro-batches, or fewer ranks a host`,
      );
    }
  }

  send(data: Elements, to: number, tag: number): Pending {
    return new MpiPending(this.addon, () => this.addon.send(WORLD, data, to, tag), data);
  }

  receive(into: Elements, from: number, tag: number, arrived?: Counter): Pending {
    const { array, index } = (arrived as MpiCounter | undefined) ?? { array: undefined, index: 0 };
    const start = () => this.addon.receive(WORLD, into, from, tag, array, index, 1);
    return new MpiPending(this.addon, start, into);
  }

  listen(into: Uint8Array, from: number, tag: number): Pending {
    return new MpiPending(this.addon, () => this.addon.listen(WORLD, into, from, tag), into);
  }

  news(): number {
    return this.addon.news();
  }

  awaitNews(since: number, milliseconds: number): void {
    named(() => this.addon.awaitNews(since, milliseconds));
  }

  silence(rank: number): number {
    return this.addon.linkSilence(rank);
  }

  lost(): number[] {
    const { silenceSeconds } = this;
    if (silenceSeconds <= 0) return [];
    return this.world.members.filter((r) => r !== this.rank && this.addon.silence(r) > silenceSeconds);
  }

  close(): void {
    this.addon.finish();
  }

  abort(code: number): void {
    this.addon.abort(code);
  }
}

/** How much shared memory is left, in words; it is a file system of its own, 64 MB in containers by default. */
function freeShared(): string {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    return `${bavail * bsize} bytes are free in /dev/shm`;
  } catch {
    return 'it has no /dev/shm';
  }
}

const all = (size: number): number[] => Array.from({ length: size }, (_, rank) => rank);

class MpiPending implements Pending {
  private request: number | undefined;
  private bytes = 0;

  /** @param held typed arrays that MPI works on until the request is done */
  constructor(
    private readonly addon: MpiAddon,
    start: () => number,
    private readonly held: Elements | readonly Elements[],
  ) {
    this.request = named(start);
  }

  get done(): boolean {
    return this.request === undefined || this.addon.done(this.request);
  }

  wait(): number {
    if (this.request !== undefined && this.held) {
      const { request } = this;
      this.bytes = named(() => this.addon.wait(request));
      this.request = undefined;
    }
    return this.bytes;
  }
}

class MpiCounter implements Counter {
  constructor(
    private readonly addon: MpiAddon,
    readonly array: Int32Array,
    readonly index: number,
  ) {}

  add(delta: number): void {
    this.addon.counterAdd(this.array, this.index, delta);
  }

  wait(target: number): void {
    named(() => this.addon.counterWait(this.array, this.index, target));
  }

  reach(target: number, milliseconds: number): boolean {
    return named(() => this.addon.counterReach(this.array, this.index, target, milliseconds));
  }
}

/** The counters lie in the last bytes of the first rank's piece. */
class MpiMemory implements SharedMemory {
  readonly bytes: Uint8Array;
  private readonly counters: Int32Array;

  constructor(
    private readonly addon: MpiAddon,
    buffer: ArrayBuffer,
    readonly stride: number,
  ) {
    this.bytes = new Uint8Array(buffer);
    this.counters = new Int32Array(buffer, stride - COUNTER_BYTES, COUNTER_WORDS * COUNTERS);
  }

  /** Zeroes the piece of the node's `index`-th rank. */
  clear(index: number): void {
    this.bytes.fill(0, index * this.stride, (index + 1) * this.stride);
  }

  counter(index: number): Counter {
    return new MpiCounter(this.addon, this.counters, index * COUNTER_WORDS);
  }
}

class MpiGroup implements Group {
  constructor(
    private readonly addon: MpiAddon,
    /** The addon's number of the communicator. */
    readonly comm: number,
    readonly members: readonly number[],
    readonly index: number,
  ) {}

  barrier(): Pending {
    return new MpiPending(this.addon, () => this.addon.barrier(this.comm), []);
  }

  broadcast(data: Elements, root: number): Pending {
    return new MpiPending(this.addon, () => this.addon.broadcast(this.comm, data, root), data);
  }

  allReduce(data: Float32Array | Float64Array | Int32Array, operation: 'sum' | 'max' | 'min'): Pending {
    return new MpiPending(this.addon, () => this.addon.allReduce(this.comm, data, operation), data);
  }

  reduceScatter(input: Float32Array, output: Float32Array, counts: readonly number[]): Pending {
    const start = () => this.addon.reduceScatter(this.comm, input, output, counts);
    return new MpiPending(this.addon, start, [input, output]);
  }

  allGather(input: Elements, output: Elements, counts: readonly number[]): Pending {
    const start = () => this.addon.allGather(this.comm, input, output, counts);
    return new MpiPending(this.addon, start, [input, output]);
  }

  allToAll(
    input: Elements,
    inputCounts: readonly number[],
    output: Elements,
    outputCounts: readonly number[],
  ): Pending {
    const start = () => this.addon.allToAll(this.comm, input, inputCounts, output, outputCounts);
    return new MpiPending(this.addon, start, [input, output]);
  }
}
