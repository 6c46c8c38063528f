import { UserError } from '../../errors.js';
import type { PacketSpec } from '../../spec/packet.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, headOf, type Network, NVLINK, nameOf } from '../graph.js';
import { BYTES, DOUBLES, type EventQueue, FLOW, NEXT, POSITION, STRIDE } from './events.js';
import type { PacketStats } from './stats.js';

export const PICOSECONDS = 1e12;

/** What an event is that is no packet: its record's position. */
export const WAKE = -3;
export const PAUSE = -4;
export const RESUME = -5;

/** A port's 64 bytes: doubles 0..5, then ints. Times in picoseconds; `PASSED` in bytes. */
export const PORT = 8;
export const FREE = 0;
export const SERIAL = 1;
export const DELAY = 2;
export const FLIGHT = 3;
const WAKE_TIME = 4;
export const PASSED = 5;
/** Ints of the same record: bytes queued, packets and sources that wait, whether its own wake-up is pending. */
export const PORT_INTS = 16;
export const QUEUED = 12;
export const WAITING = 13;
const ALARMED = 14;
/** Whether a source of its own comes before what passes through. */
export const SOURCE_NEXT = 15;

/** A lane's 32 bytes, ints: a queue of packets at the port, and what is known of the buffer behind the cable. */
export const LANE = 8;
export const FIRST = 0;
const LAST = 1;
/** Bytes that may still be sent (credits), or that lie there (PFC). */
const ROOM = 2;
/** Credits on their way back, in the order of their times. */
const RETURN_FIRST = 3;
const RETURN_LAST = 4;
/** The port waits for credits, or was told to pause (PFC). */
const HELD_UP = 5;
/** The receiver has asked for a pause. */
const ASKED = 6;
const CONTROL = 7;
/** Kinds of flow control: whoever takes all in, credits, PFC. */
const OPEN = 0;
const CREDITS = 1;
const PFC = 2;

/** More than any buffer; keeps sums within 32 bits. */
const MOST_ROOM = 2 ** 30;

/**
 * Output ports and, behind their cables, input buffers. Legend: C channels, each the output port of its tail and the input port
 * of its head; L lanes of a channel, one for each priority and virtual channel. Lane l of channel c is number c·L + l.
 */
export class Ports {
  readonly doubles: Float64Array;
  readonly ints: Int32Array;
  /** [C·L·LANE] */
  readonly lanes: Int32Array;
  /** [C] picoseconds of a byte. */
  readonly perByte: Float64Array;
  /** Most that a packet found before it at a port, picoseconds and bytes, and which; most bytes held by a buffer that pauses. */
  private readonly most = { backlog: 0, queued: 0, channel: -1, held: 0 };
  private pauses = 0;
  /** With PFC: [C] bytes from which on a pause is asked for, and where it ends. */
  private readonly pauseAt: Float64Array;
  private readonly resumeBytes: number;

  constructor(
    network: Network,
    private readonly queue: EventQueue,
    private readonly lanesPerPort: number,
    spec: PacketSpec,
  ) {
    const channels = 2 * network.cableCount;
    const buffer = new ArrayBuffer(8 * channels * PORT);
    this.doubles = new Float64Array(buffer);
    this.ints = new Int32Array(buffer);
    this.lanes = new Int32Array(channels * lanesPerPort * LANE);
    this.perByte = Float64Array.from(
      { length: channels },
      (_, c) => PICOSECONDS / network.bytesPerSecond[c >> 1]!,
    );
    this.pauseAt = new Float64Array(channels);
    this.resumeBytes = spec.resumeBytes;
    checkBuffer(spec);
    const endpoints = new Set(network.endpoints);
    for (let c = 0; c < channels; c++) this.open(network, c, spec, endpoints);
  }

  private open(network: Network, c: number, spec: PacketSpec, endpoints: ReadonlySet<number>): void {
    const { doubles, lanes, lanesPerPort } = this;
    const flight = Math.round(network.cableSeconds[c >> 1]! * PICOSECONDS);
    const head = headOf(network, c);
    doubles[c * PORT + SERIAL] = Math.round(spec.mtuBytes * this.perByte[c]!);
    doubles[c * PORT + FLIGHT] = flight;
    doubles[c * PORT + DELAY] = flight + Math.round(network.vertexSeconds[head]! * PICOSECONDS);
    doubles[c * PORT + WAKE_TIME] = Infinity;
    // What the head's own latency holds is on its way there, not in the buffer. NVLink's latency is mostly software's, so that
    // its buffers are as long as it is.
    const slow = network.cableKind[c >> 1] === NVLINK ? 2 * network.cableSeconds[c >> 1]! : 0;
    const passing = Math.ceil((network.vertexSeconds[head]! + slow) * network.bytesPerSecond[c >> 1]!);
    const room = Math.min(MOST_ROOM, spec.bufferBytes + passing);
    this.pauseAt[c] = room;
    // Endpoints take all in; PCIe and NVLink have credits in any case.
    const control = endpoints.has(head) ? OPEN : this.controlOf(network, c, spec);
    for (let lane = c * lanesPerPort; lane < (c + 1) * lanesPerPort; lane++) {
      const at = lane * LANE;
      lanes[at + FIRST] = -1;
      lanes[at + LAST] = -1;
      lanes[at + RETURN_FIRST] = -1;
      lanes[at + RETURN_LAST] = -1;
      lanes[at + ROOM] = control === CREDITS ? room : 0;
      lanes[at + CONTROL] = control;
    }
  }

  private controlOf(network: Network, c: number, { flowControl }: PacketSpec): number {
    const kind = network.cableKind[c >> 1]!;
    const switched = kind === ENDPOINT_CABLE || kind === FABRIC_CABLE;
    return switched && flowControl === 'pfc' ? PFC : CREDITS;
  }

  /** Picoseconds of a full packet on the fastest cable. */
  get leastSerial(): number {
    let least = Infinity;
    for (let port = 0; port < this.doubles.length; port += PORT)
      least = Math.min(least, this.doubles[port + SERIAL]!);
    return least;
  }

  /** Wakes the port at a time, unless that happens before anyway. */
  wakeBy(channel: number, time: number): void {
    const { doubles, ints, queue } = this;
    if (doubles[channel * PORT + WAKE_TIME]! <= time) return;
    doubles[channel * PORT + WAKE_TIME] = time;
    if (ints[channel * PORT_INTS + ALARMED] === 0) {
      ints[channel * PORT_INTS + ALARMED] = 1;
      queue.push(channel, time);
      return;
    }
    const id = queue.take();
    queue.ints[id * STRIDE + POSITION] = WAKE;
    queue.ints[id * STRIDE + FLOW] = channel;
    queue.push(id, time);
  }

  /** The port's own wake-up has come. */
  woken(channel: number): void {
    this.ints[channel * PORT_INTS + ALARMED] = 0;
    this.doubles[channel * PORT + WAKE_TIME] = Infinity;
  }

  /** One before that has come. */
  wokenBefore(channel: number): void {
    const pending = this.ints[channel * PORT_INTS + ALARMED] !== 0;
    this.doubles[channel * PORT + WAKE_TIME] = pending ? this.queue.doubles[channel * DOUBLES]! : Infinity;
  }

  enqueue(channel: number, lane: number, packet: number, bytes: number): void {
    const { lanes, ints } = this;
    const packets = this.queue.ints;
    packets[packet * STRIDE + NEXT] = -1;
    const last = lanes[lane * LANE + LAST]!;
    if (last < 0) lanes[lane * LANE + FIRST] = packet;
    else packets[last * STRIDE + NEXT] = packet;
    lanes[lane * LANE + LAST] = packet;
    ints[channel * PORT_INTS + WAITING]!++;
    this.noteQueue(channel);
    ints[channel * PORT_INTS + QUEUED]! += bytes;
  }

  /** What queues and pauses came to. */
  summary(): Pick<PacketStats, 'mostQueuedBytes' | 'mostQueuedChannel' | 'pauses' | 'mostHeldBytes'> {
    const { queued, channel, held } = this.most;
    return {
      mostQueuedBytes: queued,
      mostQueuedChannel: channel,
      pauses: this.pauses,
      mostHeldBytes: held,
    };
  }

  /** A packet finds the port busy. */
  noteQueue(channel: number): void {
    const backlog = this.backlog(channel);
    if (backlog <= this.most.backlog) return;
    this.most.backlog = backlog;
    this.most.queued = Math.round(backlog / this.perByte[channel]!);
    this.most.channel = channel;
  }

  /** Picoseconds until a port has sent all that it has. */
  backlog(channel: number): number {
    const busy = this.doubles[channel * PORT + FREE]! - this.queue.now;
    return Math.max(0, busy) + this.ints[channel * PORT_INTS + QUEUED]! * this.perByte[channel]!;
  }

  /** Takes the first packet of a lane, which must have one. */
  dequeue(channel: number, lane: number, bytes: number): void {
    const { lanes, ints } = this;
    const next = this.queue.ints[lanes[lane * LANE + FIRST]! * STRIDE + NEXT]!;
    lanes[lane * LANE + FIRST] = next;
    if (next < 0) lanes[lane * LANE + LAST] = -1;
    ints[channel * PORT_INTS + WAITING]!--;
    ints[channel * PORT_INTS + QUEUED]! -= bytes;
  }

  /** Whether the buffer behind takes these bytes now; where not, the port is woken when it does. */
  mayTake(channel: number, lane: number, bytes: number): boolean {
    const { lanes } = this;
    const at = lane * LANE;
    const control = lanes[at + CONTROL];
    if (control === OPEN) return true;
    if (control === PFC) return lanes[at + HELD_UP] === 0;
    if (lanes[at + ROOM]! < bytes) this.absorb(at);
    if (lanes[at + ROOM]! >= bytes) {
      if (lanes[at + HELD_UP] !== 0) lanes[at + HELD_UP] = 0;
      return true;
    }
    lanes[at + HELD_UP] = 1;
    const first = lanes[at + RETURN_FIRST]!;
    if (first >= 0) this.wakeBy(channel, this.queue.doubles[first * DOUBLES]!);
    return false;
  }

  /** @returns the lane where its first packet may go, else -1 */
  ready(channel: number, lane: number): number {
    const packet = this.lanes[lane * LANE + FIRST]!;
    if (packet < 0) return -1;
    return this.mayTake(channel, lane, this.queue.ints[packet * STRIDE + BYTES]!) ? lane : -1;
  }

  /** Of so many lanes from one on, that whose first packet may go and has waited longest; -1 where none may. */
  oldest(channel: number, lane: number, count: number): number {
    let found = -1;
    let least = Infinity;
    for (let l = lane; l < lane + count; l++) {
      if (this.ready(channel, l) < 0) continue;
      const since = this.queue.doubles[this.lanes[l * LANE + FIRST]! * DOUBLES]!;
      if (since < least) {
        least = since;
        found = l;
      }
    }
    return found;
  }

  /** Adds the credits that are back. */
  private absorb(at: number): void {
    const { lanes, queue } = this;
    for (let first = lanes[at + RETURN_FIRST]!; first >= 0; ) {
      if (queue.doubles[first * DOUBLES]! > queue.now) return;
      lanes[at + ROOM]! += queue.ints[first * STRIDE + BYTES]!;
      const next = queue.ints[first * STRIDE + NEXT]!;
      queue.give(first);
      lanes[at + RETURN_FIRST] = next;
      if (next < 0) lanes[at + RETURN_LAST] = -1;
      first = next;
    }
  }

  /** Bytes leave for the buffer behind. */
  fill(lane: number, bytes: number): void {
    if (this.lanes[lane * LANE + CONTROL] === CREDITS) this.lanes[lane * LANE + ROOM]! -= bytes;
  }

  /** With PFC: bytes have come into the buffer, and a pause may be due. */
  arrived(lane: number, bytes: number): void {
    const { lanes, most } = this;
    const at = lane * LANE;
    if (lanes[at + CONTROL] !== PFC) return;
    const held = lanes[at + ROOM]! + bytes;
    lanes[at + ROOM] = held;
    if (held > most.held) most.held = held;
    const channel = Math.floor(lane / this.lanesPerPort);
    if (held <= this.pauseAt[channel]! || lanes[at + ASKED] !== 0) return;
    lanes[at + ASKED] = 1;
    this.pauses++;
    this.tell(lane, PAUSE, this.queue.now + this.doubles[channel * PORT + FLIGHT]!);
  }

  /** @param end when the last of these bytes has left the buffer */
  release(lane: number, bytes: number, end: number): void {
    const { lanes } = this;
    const at = lane * LANE;
    const control = lanes[at + CONTROL];
    if (control === OPEN) return;
    const channel = this.lanesPerPort === 1 ? lane : Math.floor(lane / this.lanesPerPort);
    const time = end + this.doubles[channel * PORT + FLIGHT]!;
    if (control === CREDITS) {
      this.giveBack(channel, at, bytes, time);
      return;
    }
    lanes[at + ROOM]! -= bytes;
    if (lanes[at + ASKED] === 0 || lanes[at + ROOM]! > this.pauseAt[channel]! - this.resumeBytes) return;
    lanes[at + ASKED] = 0;
    this.tell(lane, RESUME, time);
  }

  /** A credit that comes at a time, which is not always after those that are on their way: outputs differ. */
  private giveBack(channel: number, at: number, bytes: number, time: number): void {
    const { lanes, queue } = this;
    // Those that are back are taken in first, so that few records are in use.
    this.absorb(at);
    const id = queue.take();
    queue.doubles[id * DOUBLES] = time;
    queue.ints[id * STRIDE + BYTES] = bytes;
    const last = lanes[at + RETURN_LAST]!;
    if (last >= 0 && queue.doubles[last * DOUBLES]! > time) this.insert(at, id, time);
    else {
      queue.ints[id * STRIDE + NEXT] = -1;
      if (last < 0) lanes[at + RETURN_FIRST] = id;
      else queue.ints[last * STRIDE + NEXT] = id;
      lanes[at + RETURN_LAST] = id;
    }
    if (lanes[at + HELD_UP] !== 0) this.wakeBy(channel, time);
  }

  /** Among credits on their way, before the first that comes later; there is one. */
  private insert(at: number, id: number, time: number): void {
    const { lanes, queue } = this;
    let before = -1;
    let after = lanes[at + RETURN_FIRST]!;
    while (queue.doubles[after * DOUBLES]! <= time) {
      before = after;
      after = queue.ints[after * STRIDE + NEXT]!;
    }
    queue.ints[id * STRIDE + NEXT] = after;
    if (before < 0) lanes[at + RETURN_FIRST] = id;
    else queue.ints[before * STRIDE + NEXT] = id;
  }

  private tell(lane: number, what: number, time: number): void {
    const id = this.queue.take();
    this.queue.ints[id * STRIDE + POSITION] = what;
    this.queue.ints[id * STRIDE + FLOW] = lane;
    this.queue.push(id, time);
  }

  /** A pause or its end has come. */
  setPaused(lane: number, paused: boolean): void {
    this.lanes[lane * LANE + HELD_UP] = paused ? 1 : 0;
  }
}

function checkBuffer({ bufferBytes, mtuBytes, flowControl, resumeBytes }: PacketSpec): void {
  if (bufferBytes < mtuBytes) {
    throw new UserError(
      `field packet.bufferBytes: ${bufferBytes} bytes hold no packet of ${mtuBytes}; give ${2 * mtuBytes} or more`,
    );
  }
  if (flowControl === 'pfc' && resumeBytes > bufferBytes) {
    throw new UserError(
      `field packet.resumeBytes: ${resumeBytes} bytes never leave a buffer of ${bufferBytes}; give ${bufferBytes} or less`,
    );
  }
}

/** An output port as people would name it. */
export const channelName = (network: Network, tail: number, head: number): string =>
  `${nameOf(network, tail)} to ${nameOf(network, head)}`;
