/**
 * How ranks of a run reach each other. Two implementations: threads of one process (`threads.ts`) and MPI (`mpi.ts`);
 * nothing outside this folder knows which one it has.
 *
 * A node is a set of ranks that share memory: a host, or a part of one where a run asks for smaller nodes. Ranks are
 * numbered node by node, and every node has as many.
 */

/** Typed arrays that travel. Memory of the caller stays untouched until `wait` has returned. */
export type Elements = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array;

/** Work under way. */
export interface Pending {
  /** Blocks until it is done. @returns bytes received, for a receive @throws UserError naming the ranks that are lost */
  wait(): number;
  readonly done: boolean;
}

/** Where ranks are. */
export interface Placement {
  /** Ranks in all, and of each node. */
  readonly size: number;
  readonly perNode: number;
  /** Name of the host of each rank. */
  readonly hosts: readonly string[];
}

export const nodesOf = ({ size, perNode }: Placement): number => size / perNode;
/** Ranks on the host of `rank`, itself included. */
export const ranksBeside = ({ hosts }: Placement, rank: number): number =>
  hosts.filter((host) => host === hosts[rank]).length;
export const nodeOf = ({ perNode }: Placement, rank: number): number => Math.floor(rank / perNode);

/** A count in shared memory; it only grows and wraps at 2^32. */
export interface Counter {
  add(delta: number): void;
  /** Blocks until it has reached `target`. @throws UserError */
  wait(target: number): void;
  /** Blocks for so long at most. @returns whether it has reached `target` @throws UserError */
  reach(target: number, milliseconds: number): boolean;
}

/** Memory that ranks of a node share: one piece each, one after the other. */
export interface SharedMemory {
  /** All pieces. */
  readonly bytes: Uint8Array;
  /** Bytes of one piece. */
  readonly stride: number;
  /** One of its i32 counters, zero at first. */
  counter(index: number): Counter;
}

/** Counters of each shared memory. */
export const COUNTERS = 16;

/** Some ranks that act together; every member calls the same things in the same order. */
export interface Group {
  /** Ranks of the run, ascending. */
  readonly members: readonly number[];
  /** This rank's place among them. */
  readonly index: number;
  barrier(): Pending;
  /** From the member with index `root` to all. */
  broadcast(data: Elements, root: number): Pending;
  /** In place, over all members. */
  allReduce(data: Float32Array | Float64Array | Int32Array, operation: 'sum' | 'max' | 'min'): Pending;
  /** Sums of `input`; member i gets `counts[i]` elements in `output`. */
  reduceScatter(input: Float32Array, output: Float32Array, counts: readonly number[]): Pending;
  /** Every member's `input` (`counts[i]` elements) one after the other in `output`. */
  allGather(input: Elements, output: Elements, counts: readonly number[]): Pending;
  allToAll(
    input: Elements,
    inputCounts: readonly number[],
    output: Elements,
    outputCounts: readonly number[],
  ): Pending;
}

/** One rank's end of the run. */
export interface Transport {
  readonly kind: 'threads' | 'mpi';
  readonly rank: number;
  readonly placement: Placement;
  /** All ranks. */
  readonly world: Group;
  /** The part of the run that `colour` names; collective over all ranks. */
  split(colour: number): Group;
  /**
   * Zero-filled memory of so many neighbouring ranks of a node, `bytes` for each; collective over them, and the first time
   * for a number of ranks over all. @throws UserError where there is not as much
   */
  share(bytes: number, ranks: number): SharedMemory;
  send(data: Elements, to: number, tag: number): Pending;
  /**
   * `into` may be longer than the message.
   * @param arrived is raised by one when the message is there, whatever this rank is doing then
   */
  receive(into: Elements, from: number, tag: number, arrived?: Counter): Pending;
  /** Ranks of which nothing was heard for longer than allowed. */
  lost(): number[];
  /** Ends this rank's part; collective. */
  close(): void;
  /** Ends all ranks at once. */
  abort(code: number): void;
}

/** A transport whose ranks may look after something else while they wait. */
export interface WatchedTransport extends Transport {
  /** A receive that nobody may ever match, in which case it ends with the run. */
  listen(into: Uint8Array, from: number, tag: number): Pending;
  /** Grows with everything that is done. */
  news(): number;
  /** Blocks until `news` exceeds `since`, for so long at most. @throws UserError naming the ranks that are lost */
  awaitNews(since: number, milliseconds: number): void;
  /** Seconds since this rank or `rank` last heard the other straight, by no other rank. */
  silence(rank: number): number;
}

/** What is already done. */
export const DONE: Pending = { wait: () => 0, done: true };
