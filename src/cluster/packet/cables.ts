import type { PacketSpec } from '../../spec/packet.js';
import { FABRIC_CABLE, GPU, type Network, tailOf } from '../graph.js';
import type { SwitchRoutes } from '../switch-routes.js';
import { BUFFER, type EventQueue, FLOW, POSITION, STRIDE } from './events.js';
import { InputLines } from './input-lines.js';
import { END } from './journeys.js';
import { LinkErrors } from './link-errors.js';
import { DELAY, FREE, PASSED, PORT, type Ports, SERIAL } from './ports.js';
import type { PacketFlows } from './sources.js';

/** Where packets run. */
export interface PacketNetwork {
  network: Network;
  routes: SwitchRoutes;
  /** [C] see `channelRanks`. */
  ranks: Float64Array;
  virtualChannels: number;
  spec: PacketSpec;
}

/** Puts packets on cables. A packet's lane is its priority's, one virtual channel on wherever its way falls in rank. */
export class Cables {
  hops = 0;
  readonly lines: InputLines | null;
  private readonly errors: LinkErrors | null;
  private readonly path: Int32Array;
  private readonly mtuBytes: number;
  private readonly storeAndForward: boolean;
  /** Picoseconds of a byte between switches. */
  private readonly fabricPerByte: number;
  /** V virtual channels, L lanes of a port. */
  private readonly channels: number;
  private readonly laneCount: number;

  constructor(
    private readonly at: PacketNetwork,
    private readonly flows: PacketFlows,
    private readonly queue: EventQueue,
    private readonly ports: Ports,
  ) {
    const { network, spec, virtualChannels } = at;
    this.path = flows.journeys.path;
    this.mtuBytes = spec.mtuBytes;
    this.storeAndForward = spec.switching === 'store-and-forward';
    const fabric = network.cableKind.indexOf(FABRIC_CABLE);
    this.fabricPerByte = fabric < 0 ? Infinity : ports.perByte[2 * fabric]!;
    this.channels = virtualChannels;
    this.laneCount = flows.priorityCount * virtualChannels;
    this.errors = spec.bitErrorRate > 0 ? new LinkErrors(network, ports, spec) : null;
    const buffers = 2 * network.cableCount * this.laneCount;
    this.lines = spec.queueing === 'input' ? new InputLines(network, queue, buffers) : null;
  }

  /** Packets that links sent again. */
  get retries(): number {
    return this.errors?.retries ?? 0;
  }

  /** The lane of a channel that a packet takes next. */
  laneOf(packet: number, channel: number): number {
    const { network, ranks } = this.at;
    const { ints } = this.queue;
    const buffer = ints[packet * STRIDE + BUFFER]!;
    const priority = this.flows.priorities[ints[packet * STRIDE + FLOW]!]!;
    let virtual = 0;
    if (buffer >= 0 && network.kind[tailOf(network, channel)] !== GPU) {
      virtual = buffer % this.channels;
      const before = Math.floor(buffer / this.laneCount);
      if (virtual + 1 < this.channels && ranks[channel]! <= ranks[before]!) virtual++;
    }
    return channel * this.laneCount + priority * this.channels + virtual;
  }

  /**
   * Sends a packet that its lane takes, on a port that is free at a time. Its event is when the head can be acted upon at the end
   * of the cable; where the way ends, or switches store and forward, when the tail is there.
   */
  transmit(packet: number, channel: number, lane: number, bytes: number, time: number): void {
    const { ports, queue } = this;
    const { doubles } = ports;
    const port = channel * PORT;
    const base = packet * STRIDE;
    const serial =
      bytes === this.mtuBytes ? doubles[port + SERIAL]! : Math.round(bytes * ports.perByte[channel]!);
    const start = this.errors ? time + this.errors.delay(channel, bytes, serial) : time;
    doubles[port + FREE] = start + serial;
    doubles[port + PASSED]! += bytes;
    const from = queue.ints[base + BUFFER]!;
    if (from >= 0) {
      ports.release(from, bytes, start + serial);
      this.lines?.left(from, start + serial);
    }
    ports.fill(lane, bytes);
    // Records may have moved: a returning credit takes one.
    queue.ints[base + BUFFER] = lane;
    this.hops++;
    const lag = this.lag(this.path[queue.ints[base + POSITION]!]!, channel, bytes, serial);
    queue.push(packet, start + doubles[port + DELAY]! + lag);
  }

  /** How long the head must wait at the end of the cable: a faster cable must not run out of bytes. */
  private lag(next: number, channel: number, bytes: number, serial: number): number {
    if (next === END || this.storeAndForward) return serial;
    const { perByte } = this.ports;
    const following = next >= 0 ? perByte[next]! : this.fabricPerByte;
    return following < perByte[channel]! ? serial - Math.round(bytes * following) : 0;
  }
}
