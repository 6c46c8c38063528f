import { headOf, type Network, SWITCH } from '../graph.js';
import { type EventQueue, NEXT, STRIDE } from './events.js';

/**
 * Switches that keep one line for each input lane: only its first packet may go, the next one when that has left. Legend: B buffers, one
 * for each lane of each channel.
 */
export class InputLines {
  /** [B] the packet that may go, -1 where there is none; those behind it. */
  private readonly head: Int32Array;
  private readonly first: Int32Array;
  private readonly last: Int32Array;
  /** [B] picoseconds at which the last that went has left. */
  private readonly free: Float64Array;
  /** [B] whether the buffer is a switch's. */
  private readonly lined: Uint8Array;

  constructor(
    network: Network,
    private readonly queue: EventQueue,
    buffers: number,
  ) {
    const lanes = buffers / (2 * network.cableCount);
    this.head = new Int32Array(buffers).fill(-1);
    this.first = new Int32Array(buffers).fill(-1);
    this.last = new Int32Array(buffers).fill(-1);
    this.free = new Float64Array(buffers);
    this.lined = Uint8Array.from({ length: buffers }, (_, b) =>
      network.kind[headOf(network, Math.floor(b / lanes))] === SWITCH ? 1 : 0,
    );
  }

  /** A packet has come into a buffer, or its turn has. @returns whether it must wait */
  holdsUp(packet: number, buffer: number): boolean {
    if (this.lined[buffer] === 0 || this.head[buffer] === packet) return false;
    if (this.head[buffer]! >= 0) {
      this.queue.ints[packet * STRIDE + NEXT] = -1;
      if (this.first[buffer]! < 0) this.first[buffer] = packet;
      else this.queue.ints[this.last[buffer]! * STRIDE + NEXT] = packet;
      this.last[buffer] = packet;
      return true;
    }
    this.head[buffer] = packet;
    if (this.free[buffer]! <= this.queue.now) return false;
    this.queue.push(packet, this.free[buffer]!);
    return true;
  }

  /** The first of a buffer goes; its tail leaves at `end`, and then it is the next one's turn. */
  left(buffer: number, end: number): void {
    if (this.lined[buffer] === 0) return;
    const next = this.first[buffer]!;
    this.free[buffer] = end;
    this.head[buffer] = next;
    if (next < 0) return;
    this.first[buffer] = this.queue.ints[next * STRIDE + NEXT]!;
    this.queue.push(next, end);
  }
}
