import { statfsSync } from 'node:fs';
import type { Team } from '../expert/team.js';
import { type Group, ranksBeside, type SharedMemory } from '../expert/transport/transport.js';

/** Elements at which shards and what lies in them begin: whole cache lines. */
export const ALIGNMENT = 16;

/** Elements up to the next one that is aligned. */
export const aligned = (elements: number): number => Math.ceil(elements / ALIGNMENT) * ALIGNMENT;

/** Ranks that share memory and read each other's part of it directly; a rank alone without. */
export interface Neighbours {
  readonly memory: SharedMemory;
  /** Ranks of the node, and this rank's place there. */
  readonly count: number;
  readonly local: number;
}

/**
 * FP32 elements that some ranks hold in common, cut into one shard for each. Legend: N nodes of L ranks; the rank with place l of
 * node n has shard l·N + n, so that the shards of the ranks with the same place, a column, lie side by side. Sums go over the
 * neighbours in shared memory first, then over the column in messages, an L-th of the elements each; values come back the same way.
 */
export class Shards {
  /** f32 [elements]: this rank's addends or, between `sum` and `spread`, of its own shard the sums. */
  readonly own: Float32Array;
  /** This rank's shard. */
  readonly begin: number;
  readonly end: number;
  private readonly width: number;
  /** Messages of the column: this rank's shard of each of its ranks; sizes of the shards. */
  private readonly arrived: Float32Array;
  private readonly counts: number[];
  private meetings = 0;

  /**
   * @param column ranks with this rank's place in every node
   * @param allocate memory for so many bytes, where there are no neighbours
   */
  constructor(
    private readonly elements: number,
    private readonly column: Group,
    private readonly neighbours: Neighbours | undefined,
    allocate: (bytes: number) => ArrayBuffer,
  ) {
    const { count, local } = neighbours ?? { count: 1, local: 0 };
    const nodes = column.members.length;
    this.width = aligned(Math.ceil(elements / (count * nodes)));
    this.counts = column.members.map((_, n) => this.startOf(local, n + 1) - this.startOf(local, n));
    this.begin = this.startOf(local, column.index);
    this.end = this.startOf(local, column.index + 1);
    this.own = neighbours ? this.pieceOf(local) : new Float32Array(allocate(4 * elements));
    this.arrived = new Float32Array(nodes > 1 ? nodes * (this.end - this.begin) : 0);
  }

  /** Adds up this rank's shard over all ranks; collective. */
  sum(add: (sum: Float32Array, addend: Float32Array) => void): void {
    const { column, own, arrived, counts, begin, end } = this;
    const [from, to] = this.bounds;
    this.meet();
    for (const place of this.others) add(own.subarray(from, to), this.pieceOf(place).subarray(from, to));
    if (column.members.length === 1) return;
    // Each sends the others their shards: MPI's own reduce-scatter sends everything to one rank first.
    const size = end - begin;
    column.allToAll(own.subarray(from, to), counts, arrived, Array(counts.length).fill(size)).wait();
    const sum = own.subarray(begin, end).fill(0);
    for (let node = 0; node < counts.length; node++)
      add(sum, arrived.subarray(node * size, (node + 1) * size));
  }

  /**
   * Gives the values of this rank's shard, which `own` holds, to all; collective, once all have summed.
   * @param read is shown those of the other shards, which begin at element `from`
   */
  spread(read: (values: Float32Array, from: number) => void): void {
    const { column, own, arrived, begin, end } = this;
    const [from, to] = this.bounds;
    if (column.members.length > 1) {
      const shard = arrived.subarray(0, end - begin);
      shard.set(own.subarray(begin, end));
      column.allGather(shard, own.subarray(from, to), this.counts).wait();
    }
    this.meet();
    read(own.subarray(from, begin), from);
    read(own.subarray(end, to), end);
    for (const place of this.others) {
      const first = this.startOf(place, 0);
      read(this.pieceOf(place).subarray(first, this.startOf(place + 1, 0)), first);
    }
    // What was read is written again from here on.
    this.meet();
  }

  /** Waits for all neighbours. */
  private meet(): void {
    if (!this.neighbours) return;
    const { memory, count } = this.neighbours;
    const counter = memory.counter(0);
    counter.add(1);
    counter.wait(++this.meetings * count);
  }

  /** First element of a shard. */
  private startOf(local: number, node: number): number {
    return Math.min((local * this.column.members.length + node) * this.width, this.elements);
  }

  /** First element of this rank's column, and the one after its last. */
  private get bounds(): [number, number] {
    const local = this.neighbours?.local ?? 0;
    return [this.startOf(local, 0), this.startOf(local + 1, 0)];
  }

  /** Places of the other ranks of the node. */
  private get others(): number[] {
    const { count, local } = this.neighbours ?? { count: 1, local: 0 };
    return Array.from({ length: count }, (_, place) => place).filter((place) => place !== local);
  }

  private pieceOf(local: number): Float32Array {
    const { bytes, stride } = this.neighbours!.memory;
    return new Float32Array(bytes.buffer, bytes.byteOffset + local * stride, this.elements);
  }
}

/**
 * For all ranks of a run; collective. None where a host has too little memory to share, as containers often do: sums go in
 * messages then.
 */
export function neighboursOf({ transport, world }: Team, elements: number): Neighbours | undefined {
  const { placement, rank } = transport;
  const count = placement.perNode;
  const bytes = 4 * elements;
  const onHost = ranksBeside(placement, rank);
  const fits = Int32Array.of(onHost * bytes <= SHARE * freeSharedBytes() ? 1 : 0);
  world.allReduce(fits, 'min').wait();
  if (count === 1 || fits[0] === 0) return undefined;
  return { memory: transport.share(bytes, count), count, local: rank % count };
}

/** Part of a host's shared memory that gradients may take; tokens on their way need some, too. */
const SHARE = 0.5;

function freeSharedBytes(): number {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    return bavail * bsize;
  } catch {
    return Number.POSITIVE_INFINITY; // a system that keeps it elsewhere
  }
}
