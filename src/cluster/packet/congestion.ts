import type { Random } from '../../numerics/random.js';
import type { PacketSpec } from '../../spec/packet.js';
import { BUFFER, type EventQueue, POSITION, SEQUENCE, STRIDE } from './events.js';
import { PICOSECONDS } from './ports.js';
import type { PacketFlows } from './sources.js';

/** An event: what a receiver tells a sender; its record is the packet that it is about. */
export const FEEDBACK = -6;
/** In a packet's sequence: a switch has marked it. */
export const MARKED = 1 << 30;

/** Says when a flow may send, and learns from what becomes of its packets. */
export interface Control {
  /** @returns picoseconds at which the flow may send its next packet: `now` or before for at once, Infinity until it is told */
  mayAt(flow: number): number;
  sent(flow: number, packet: number, bytes: number): void;
  /** @returns whether the packet's record now carries feedback and must not be given back */
  delivered(flow: number, packet: number, bytes: number): boolean;
  /** Feedback has come. */
  told(flow: number, packet: number): void;
  /** @returns whether a packet that finds this many bytes queued at a port of this many picoseconds a byte is marked */
  marks(queued: number, perByte: number): boolean;
  /** Notifications that senders got. */
  readonly notified: number;
}

/** When the next packet may go, a gap after this one; up to a gap that was missed, because the port was busy, is made up for. */
const paced = (next: number, now: number, gap: number): number => Math.max(next, now - gap) + gap;

/** Flows held to the caps that they came with. */
export class Caps implements Control {
  readonly notified: number = 0;
  /** [F] picoseconds. */
  private readonly next: Float64Array;

  constructor(
    private readonly queue: EventQueue,
    private readonly caps: Float64Array,
  ) {
    this.next = new Float64Array(caps.length);
  }

  mayAt(flow: number): number {
    return this.next[flow]!;
  }

  sent(flow: number, _packet: number, bytes: number): void {
    const gap = Math.ceil((bytes * PICOSECONDS) / this.caps[flow]!);
    this.next[flow] = paced(this.next[flow]!, this.queue.now, gap);
  }

  delivered(): boolean {
    return false;
  }

  told(): void {}

  marks(): boolean {
    return false;
  }
}

/** Bits per second that DCQCN's thresholds and steps are stated for. */
const DCQCN_BITS = 40e9;

/**
 * DCQCN: a mark cuts the sender's rate by half its congestion estimate; then it climbs back in steps of time and of bytes, which are
 * counted up when the flow sends, so that they need no timers.
 */
export class Dcqcn implements Control {
  notified = 0;
  /** [F] bytes per second: now, aimed at, and at most. */
  private readonly rate: Float64Array;
  private readonly target: Float64Array;
  /** [F] congestion estimate alpha. */
  private readonly estimate: Float64Array;
  /** [F] picoseconds: last packet, last cut, and the last notification that the receiver sent; bytes of the last packet. */
  private readonly sentAt: Float64Array;
  private readonly cutAt: Float64Array;
  private readonly notifiedAt: Float64Array;
  private readonly sentBytes: Float64Array;
  /** [F] steps of time and of bytes taken since the cut, and bytes since then. */
  private readonly timeSteps: Int32Array;
  private readonly byteSteps: Int32Array;
  private readonly bytes: Float64Array;
  private readonly spec: PacketSpec['dcqcn'];
  private readonly latency: Float64Array;

  /** @param lineRates [F] bytes per second of each flow's first cable, where it starts */
  constructor(
    private readonly queue: EventQueue,
    flows: PacketFlows,
    { dcqcn }: PacketSpec,
    private readonly lineRates: Float64Array,
    private readonly random: Random,
  ) {
    const { count, caps } = flows;
    this.spec = dcqcn;
    this.latency = flows.journeys.latency;
    if (caps) for (let f = 0; f < count; f++) lineRates[f] = Math.min(lineRates[f]!, caps[f]!);
    this.rate = lineRates.slice();
    this.target = lineRates.slice();
    this.estimate = new Float64Array(count).fill(1);
    this.sentAt = new Float64Array(count);
    this.sentBytes = new Float64Array(count);
    this.cutAt = new Float64Array(count).fill(-1);
    this.notifiedAt = new Float64Array(count).fill(-Infinity);
    this.timeSteps = new Int32Array(count);
    this.byteSteps = new Int32Array(count);
    this.bytes = new Float64Array(count);
  }

  /** Where the rate will have grown before the packet's time, that is when to ask again. */
  mayAt(flow: number): number {
    const cut = this.cutAt[flow]!;
    if (cut >= 0) this.recover(flow, 0);
    const due = this.sentAt[flow]! + Math.floor((this.sentBytes[flow]! * PICOSECONDS) / this.rate[flow]!);
    if (cut < 0 || due <= this.queue.now) return due;
    const step = this.spec.stepSeconds * PICOSECONDS;
    return Math.min(due, Math.ceil(cut + (this.timeSteps[flow]! + 1) * step));
  }

  sent(flow: number, _packet: number, bytes: number): void {
    if (this.cutAt[flow]! >= 0) this.recover(flow, bytes);
    this.sentAt[flow] = this.queue.now;
    this.sentBytes[flow] = bytes;
  }

  /** Takes the steps that time and bytes since the cut have earned. */
  private recover(flow: number, bytes: number): void {
    const { stepSeconds, stepBytes, gain } = this.spec;
    this.bytes[flow]! += bytes;
    const elapsed = (this.queue.now - this.cutAt[flow]!) / (stepSeconds * PICOSECONDS);
    for (; this.timeSteps[flow]! + 1 <= elapsed; this.step(flow)) {
      this.timeSteps[flow]!++;
      this.estimate[flow]! *= 1 - gain;
      if (this.rate[flow]! >= this.lineRates[flow]!) this.timeSteps[flow] = Math.floor(elapsed);
    }
    for (; (this.byteSteps[flow]! + 1) * stepBytes <= this.bytes[flow]!; this.step(flow)) {
      this.byteSteps[flow]!++;
    }
  }

  /** Fast recovery, then additive, then (both counters beyond F) hyper increase, whose step the paper leaves open: ten times the additive. */
  private step(flow: number): void {
    const { fastSteps, increaseMbps } = this.spec;
    const line = this.lineRates[flow]!;
    const [time, bytes] = [this.timeSteps[flow]!, this.byteSteps[flow]!];
    if (Math.max(time, bytes) > fastSteps) {
      const increase = ((increaseMbps * 1e6) / 8) * ((line * 8) / DCQCN_BITS);
      const beyond = Math.min(time, bytes) > fastSteps ? 10 : 1;
      this.target[flow] = Math.min(line, this.target[flow]! + beyond * increase);
    }
    this.rate[flow] = Math.min(line, (this.rate[flow]! + this.target[flow]!) / 2);
  }

  delivered(flow: number, packet: number): boolean {
    const { queue } = this;
    if ((queue.ints[packet * STRIDE + SEQUENCE]! & MARKED) === 0) return false;
    if (queue.now - this.notifiedAt[flow]! < this.spec.notifySeconds * PICOSECONDS) return false;
    this.notifiedAt[flow] = queue.now;
    sendBack(queue, packet, this.latency[flow]!);
    return true;
  }

  told(flow: number): void {
    this.notified++;
    const { gain, leastMbps } = this.spec;
    const rate = this.rate[flow]!;
    this.target[flow] = rate;
    this.rate[flow] = Math.max((leastMbps * 1e6) / 8, rate * (1 - this.estimate[flow]! / 2));
    this.estimate[flow] = (1 - gain) * this.estimate[flow]! + gain;
    this.cutAt[flow] = this.queue.now;
    this.timeSteps[flow] = 0;
    this.byteSteps[flow] = 0;
    this.bytes[flow] = 0;
  }

  marks(queued: number, perByte: number): boolean {
    const { minQueueBytes, maxQueueBytes, maxMarkShare } = this.spec;
    const at40 = (queued * (perByte * DCQCN_BITS)) / (8 * PICOSECONDS);
    if (at40 <= minQueueBytes) return false;
    if (at40 >= maxQueueBytes) return true;
    const share = (maxMarkShare * (at40 - minQueueBytes)) / (maxQueueBytes - minQueueBytes);
    return this.random.uniform() < share;
  }
}

/** Swift's window: below the target delay it grows by `ai` a round trip, above it is cut by the excess, once a round trip. */
export class RoundTrips implements Control {
  notified = 0;
  /** [F] bytes: the window, its upper bound, and what is on its way. */
  private readonly window: Float64Array;
  private readonly mostWindow: Float64Array;
  private readonly flying: Float64Array;
  /** [F] picoseconds: earliest next packet, where the window is less than one; last cut. */
  private readonly next: Float64Array;
  private readonly cutAt: Float64Array;
  /** [packets] picoseconds at which each was sent. */
  private sentAt = new Float64Array(1024);
  private readonly spec: PacketSpec['rtt'];
  private readonly latency: Float64Array;

  /** @param lineRates [F] bytes per second of each flow's first cable: windows begin at what fills it */
  constructor(
    private readonly queue: EventQueue,
    flows: PacketFlows,
    { rtt }: PacketSpec,
    lineRates: Float64Array,
    private readonly mtuBytes: number,
  ) {
    this.spec = rtt;
    this.latency = flows.journeys.latency;
    const { count } = flows;
    this.window = new Float64Array(count);
    for (let f = 0; f < count; f++) {
      const roundTrip = 2 * this.latency[f]! + rtt.targetSeconds;
      const rate = flows.caps ? Math.min(lineRates[f]!, flows.caps[f]!) : lineRates[f]!;
      this.window[f] = Math.max(mtuBytes, rate * roundTrip) + mtuBytes;
    }
    this.mostWindow = this.window.slice();
    this.flying = new Float64Array(count);
    this.next = new Float64Array(count);
    this.cutAt = new Float64Array(count).fill(-Infinity);
  }

  mayAt(flow: number): number {
    const window = this.window[flow]!;
    const flying = this.flying[flow]!;
    if (flying > 0 && flying + this.mtuBytes > window) return Infinity;
    return this.next[flow]!;
  }

  sent(flow: number, packet: number, bytes: number): void {
    this.flying[flow]! += bytes;
    if (packet >= this.sentAt.length) {
      const larger = new Float64Array(Math.max(packet + 1, 2 * this.sentAt.length));
      larger.set(this.sentAt);
      this.sentAt = larger;
    }
    this.sentAt[packet] = this.queue.now;
    const { now } = this.queue;
    const window = this.window[flow]!;
    if (window < this.mtuBytes)
      this.next[flow] = now + Math.round(this.idle(flow) * (this.mtuBytes / window));
  }

  /** Picoseconds of a round trip on the idle way, target included. */
  private idle(flow: number): number {
    return (2 * this.latency[flow]! + this.spec.targetSeconds) * PICOSECONDS;
  }

  /** Every packet is acknowledged; its round trip is the way there, as it was, and the idle way back. */
  delivered(flow: number, packet: number, bytes: number): boolean {
    this.queue.ints[packet * STRIDE + BUFFER] = bytes;
    sendBack(this.queue, packet, this.latency[flow]!);
    return true;
  }

  told(flow: number, packet: number): void {
    const { mtuBytes, spec, queue } = this;
    const bytes = queue.ints[packet * STRIDE + BUFFER]!;
    const delay = queue.now - this.sentAt[packet]!;
    const target = this.idle(flow);
    this.flying[flow]! -= bytes;
    let window = this.window[flow]!;
    if (delay < target) {
      const increase = spec.increasePackets * mtuBytes;
      window += window >= mtuBytes ? (increase * bytes) / window : (increase * bytes) / mtuBytes;
    } else if (queue.now - this.cutAt[flow]! >= delay) {
      window *= Math.max(1 - (spec.decrease * (delay - target)) / delay, 1 - spec.mostDecrease);
      this.cutAt[flow] = queue.now;
      this.notified++;
    }
    // Swift's least window: a packet in a hundred round trips (§3.2, min_cwnd).
    this.window[flow] = Math.min(this.mostWindow[flow]!, Math.max(0.01 * mtuBytes, window));
  }

  marks(): boolean {
    return false;
  }
}

/** Turns a packet that has arrived into feedback: short, ahead of all others, so that it takes the idle way's time. */
function sendBack(queue: EventQueue, packet: number, latencySeconds: number): void {
  queue.ints[packet * STRIDE + POSITION] = FEEDBACK;
  queue.push(packet, queue.now + Math.round(latencySeconds * PICOSECONDS));
}
