import { Random } from '../../numerics/random.js';
import type { FlowOptions } from '../flow-engine.js';
import { NIC, tailOf } from '../graph.js';
import { Arbiter } from './arbiter.js';
import type { PacketNetwork } from './cables.js';
import { Cables } from './cables.js';
import { type Control, FEEDBACK, MARKED } from './congestion.js';
import { explainDeadlock } from './deadlock.js';
import {
  BUFFER,
  BYTES,
  DOUBLES,
  EventQueue,
  FLOW,
  POSITION,
  RECORD_BYTES,
  SEQUENCE,
  STRIDE,
} from './events.js';
import { DETOUR, END } from './journeys.js';
import {
  FIRST,
  FREE,
  LANE,
  PASSED,
  PAUSE,
  PICOSECONDS,
  PORT,
  PORT_INTS,
  Ports,
  QUEUED,
  RESUME,
  SOURCE_NEXT,
  WAITING,
  WAKE,
} from './ports.js';
import { Progress } from './progress.js';
import { Roamer } from './roaming.js';
import { controlOf, mayRunAhead, staggered, wheelFor } from './setup.js';
import { type PacketFlows, Sources } from './sources.js';
import { emptyStats, type PacketStats, type PacketTimes } from './stats.js';

/** Events beside those of ports and congestion control. */
const START = -7;
const FINISH = -8;
const ALLOWED = -9;

/** Packets that a port may have put on its cable ahead of time; more reach beyond the wheel of events. */
const AHEAD = 4;

/**
 * Runs flows packet by packet. A packet's head goes on to the next cable as soon as that is free and the buffer behind has
 * room; times are whole picoseconds.
 * @throws UserError where packets wait for each other for ever, or flows never begin
 */
export function runPackets(at: PacketNetwork, flows: PacketFlows, options: FlowOptions = {}): PacketTimes {
  return new PacketRun(at, flows, options).run();
}

class PacketRun {
  private readonly queue: EventQueue;
  private readonly ports: Ports;
  private readonly sources: Sources;
  private readonly roamer: Roamer;
  private readonly control: Control | null;
  private readonly cables: Cables;
  private readonly arbiter: Arbiter | null;
  private readonly path: Int32Array;
  /** K priorities, V virtual channels, L = K·V lanes of a port. */
  private readonly priorities: number;
  private readonly channels: number;
  private readonly laneCount: number;
  private readonly mtuBytes: number;
  /**
   * Where a port has one lane, its queue is first come, first served, and what comes can be put on the cable now for when the
   * port will be free: an event less. How far ahead, in picoseconds; 0 where order or room may still change. What begins at the
   * port goes ahead too, as a NIC fetches a few packets, so that a flow that starts may wait for as many.
   */
  private readonly ahead: number;
  /** [C] whether no flow begins there. */
  private readonly passing: Uint8Array;
  private readonly pauses: boolean;
  private readonly progress: Progress;
  private readonly stats: PacketStats;
  /** When the packet that is being sent goes onto its cable. */
  private start = 0;
  private inFlight = 0;
  private events = 0;

  constructor(
    private readonly at: PacketNetwork,
    private readonly flows: PacketFlows,
    private readonly options: FlowOptions,
  ) {
    const { network, spec, virtualChannels } = at;
    const { priorityCount, journeys } = flows;
    const channelCount = 2 * network.cableCount;
    this.priorities = priorityCount;
    this.channels = virtualChannels;
    this.laneCount = priorityCount * virtualChannels;
    this.mtuBytes = spec.mtuBytes;
    this.queue = new EventQueue(channelCount, ...wheelFor(network, flows, spec.mtuBytes));
    this.ports = new Ports(network, this.queue, this.laneCount, spec);
    this.sources = new Sources(flows, channelCount, spec.mtuBytes);
    this.passing = this.sources.freePorts(channelCount);
    this.ahead = this.laneCount === 1 && mayRunAhead(spec) ? AHEAD * this.ports.leastSerial : 0;
    this.path = journeys.path;
    this.pauses = spec.flowControl === 'pfc';
    const random = Random.stream(spec.seed, 'packets');
    this.roamer = new Roamer(at, this.ports, this.queue, journeys.path.includes(DETOUR), random.nextUint32());
    this.control = controlOf(this.queue, network, flows, spec);
    this.cables = new Cables(at, flows, this.queue, this.ports);
    this.arbiter =
      spec.priorities === 'strict' ? null : new Arbiter(spec.priorities, channelCount, priorityCount);
    this.stats = emptyStats(virtualChannels, priorityCount);
    this.progress = new Progress(flows, this.stats);
    for (const flow of staggered(this.progress.first(), journeys)) this.schedule(flow, 0);
  }

  /** The flow's start event; a NIC that is an endpoint takes its own time first. */
  private schedule(flow: number, from: number): void {
    const { network } = this.at;
    const { ways, begins } = this.flows.journeys;
    const way = ways[flow]!;
    let start = this.progress.started(flow, from);
    if (way < ways[flow + 1]!) {
      const source = tailOf(network, this.path[begins[way]!]!);
      if (network.kind[source] === NIC) start += Math.round(network.vertexSeconds[source]! * PICOSECONDS);
    }
    this.note(START, flow, start);
  }

  private note(what: number, subject: number, time: number): void {
    const { queue } = this;
    const id = queue.take();
    queue.ints[id * STRIDE + POSITION] = what;
    queue.ints[id * STRIDE + FLOW] = subject;
    queue.push(id, time);
  }

  run(): PacketTimes {
    const { queue } = this;
    const ports = this.passing.length;
    for (let id = queue.pop(); id >= 0; id = queue.pop()) {
      this.events++;
      if (id < ports) {
        this.ports.woken(id);
        this.serveIfFree(id);
      } else if (queue.ints[id * STRIDE + POSITION]! >= 0) this.arrive(id);
      else this.happen(id);
    }
    if (this.inFlight > 0) throw explainDeadlock(this.at, this.ports, queue, this.laneCount);
    if (this.progress.done < this.flows.count) throw this.progress.stuck(this.options.nameOf);
    return this.result();
  }

  /** An event that is no packet. */
  private happen(id: number): void {
    const { queue, ports } = this;
    const what = queue.ints[id * STRIDE + POSITION]!;
    const subject = queue.ints[id * STRIDE + FLOW]!;
    if (what === FEEDBACK) this.control!.told(subject, id);
    queue.give(id);
    if (what === WAKE) {
      ports.wokenBefore(subject);
      this.serveIfFree(subject);
    } else if (what === PAUSE) ports.setPaused(subject, true);
    else if (what === RESUME) {
      ports.setPaused(subject, false);
      this.serveIfFree(Math.floor(subject / this.laneCount));
    } else if (what === START) this.startFlow(subject);
    else if (what === FINISH) this.finish(subject);
    else if (what === ALLOWED) this.list(subject);
    else this.listAll(subject);
  }

  private startFlow(flow: number): void {
    const { bytes, journeys } = this.flows;
    if (bytes[flow]! > 0 && journeys.ways[flow]! < journeys.ways[flow + 1]!) this.listAll(flow);
    else this.note(FINISH, flow, this.queue.now + Math.round(journeys.latency[flow]! * PICOSECONDS));
  }

  private listAll(flow: number): void {
    const { ways } = this.flows.journeys;
    if (this.sources.left[flow] === 0) return;
    for (let way = ways[flow]!; way < ways[flow + 1]!; way++) this.list(way);
  }

  private list(way: number): void {
    if (this.sources.left[this.sources.flowOf[way]!] === 0 || !this.sources.list(way)) return;
    const channel = Math.floor(this.sources.ringOf[way]! / this.priorities);
    this.ports.ints[channel * PORT_INTS + WAITING]!++;
    this.serveIfFree(channel);
  }

  /** A packet's head has come to the end of a cable. */
  private arrive(packet: number): void {
    const { ints } = this.queue;
    const base = packet * STRIDE;
    const position = ints[base + POSITION]!;
    const entry = this.path[position]!;
    if (entry === END) {
      this.deliver(packet);
      return;
    }
    if (this.cables.lines?.holdsUp(packet, ints[base + BUFFER]!)) return;
    if (this.pauses) this.ports.arrived(ints[base + BUFFER]!, ints[base + BYTES]!);
    if (entry >= 0) {
      ints[base + POSITION] = position + 1;
      this.offer(packet, entry);
    } else {
      const from = Math.floor(ints[base + BUFFER]! / this.laneCount);
      this.offer(packet, this.roamer.next(packet, this.path, from));
    }
  }

  /** To a port that it leaves by. */
  private offer(packet: number, channel: number): void {
    const { ports, queue } = this;
    const lane = this.laneCount === 1 ? channel : this.cables.laneOf(packet, channel);
    const bytes = queue.ints[packet * STRIDE + BYTES]!;
    const free = ports.doubles[channel * PORT + FREE]!;
    const start = Math.max(free, queue.now);
    if (
      ports.ints[channel * PORT_INTS + WAITING] === 0 &&
      (start === queue.now || (start - queue.now < this.ahead && this.passing[channel] !== 0)) &&
      ports.mayTake(channel, lane, bytes)
    ) {
      if (start > queue.now) {
        ports.noteQueue(channel);
        this.noteWait(0, start - queue.now, channel, packet);
      }
      this.cables.transmit(packet, channel, lane, bytes, start);
      return;
    }
    ports.enqueue(channel, lane, packet, bytes);
    if (this.control) this.mark(packet, channel);
    if (free > queue.now) ports.wakeBy(channel, free);
    else this.serve(channel);
  }

  private mark(packet: number, channel: number): void {
    const { ports, queue } = this;
    if (!this.control!.marks(ports.ints[channel * PORT_INTS + QUEUED]!, ports.perByte[channel]!)) return;
    queue.ints[packet * STRIDE + SEQUENCE]! |= MARKED;
    this.stats.marks++;
  }

  private serveIfFree(channel: number): void {
    const { ports, queue } = this;
    if (ports.ints[channel * PORT_INTS + WAITING] === 0) return;
    const free = ports.doubles[channel * PORT + FREE]!;
    if (free <= queue.now) this.serve(channel);
    else ports.wakeBy(channel, free);
  }

  /** A free port sends what may go, the most urgent first; with one lane, a few packets ahead. */
  private serve(channel: number): void {
    const { ports, queue, arbiter } = this;
    const waiting = channel * PORT_INTS + WAITING;
    let sent = false;
    this.start = queue.now;
    if (this.laneCount > 1) {
      for (let k = 0; k < this.priorities && !sent; k++) {
        sent = this.servePriority(channel, arbiter ? arbiter.order(channel, k) : k);
      }
    } else {
      const ahead = this.control && this.passing[channel] === 0 ? 0 : this.ahead;
      do {
        sent = this.servePriority(channel, 0);
        this.start = ports.doubles[channel * PORT + FREE]!;
      } while (sent && ports.ints[waiting]! > 0 && this.start - queue.now < ahead);
    }
    if (sent && ports.ints[waiting]! > 0) ports.wakeBy(channel, ports.doubles[channel * PORT + FREE]!);
  }

  /** What passes through and what begins here take turns. */
  private servePriority(channel: number, priority: number): boolean {
    const { ports, sources } = this;
    const ring = channel * this.priorities + priority;
    const own = sources.head(ring) >= 0;
    const lane = channel * this.laneCount + priority * this.channels;
    const turn = channel * PORT_INTS + SOURCE_NEXT;
    if (own && ports.ints[turn] !== 0 && this.inject(channel, ring, lane)) {
      ports.ints[turn] = 0;
      return true;
    }
    const first =
      this.channels === 1 ? ports.ready(channel, lane) : ports.oldest(channel, lane, this.channels);
    if (first >= 0) {
      this.forward(channel, first, priority);
      ports.ints[turn] = 1;
      return true;
    }
    return own && ports.ints[turn] === 0 && this.inject(channel, ring, lane);
  }

  /** Sends the first packet of a lane, which may go. */
  private forward(channel: number, lane: number, priority: number): void {
    const { ports, queue } = this;
    const packet = ports.lanes[lane * LANE + FIRST]!;
    const bytes = queue.ints[packet * STRIDE + BYTES]!;
    ports.dequeue(channel, lane, bytes);
    this.noteWait(priority, this.start - queue.doubles[packet * DOUBLES]!, channel, packet);
    this.arbiter?.sent(channel, priority, bytes);
    this.cables.transmit(packet, channel, lane, bytes, this.start);
  }

  private noteWait(priority: number, waited: number, channel: number, packet: number): void {
    const wait = this.stats.waits[priority]!;
    if (waited <= wait.seconds) return;
    wait.seconds = waited;
    wait.channel = channel;
    wait.flow = this.queue.ints[packet * STRIDE + FLOW]!;
  }

  /** Makes the next packet of the source whose turn it is. @returns whether one went */
  private inject(channel: number, ring: number, lane: number): boolean {
    const { ports, sources, control } = this;
    for (let way = sources.head(ring); way >= 0; way = sources.head(ring)) {
      const flow = sources.flowOf[way]!;
      const left = sources.left[flow]!;
      const allowed = left === 0 ? Infinity : control ? control.mayAt(flow) : 0;
      if (allowed <= this.queue.now) {
        const bytes = Math.min(left, this.mtuBytes);
        if (!ports.mayTake(channel, lane, bytes)) return false;
        this.send(flow, way, bytes, channel, lane);
        if (left === bytes) this.unlist(channel, ring);
        else sources.turn(ring, bytes);
        return true;
      }
      this.unlist(channel, ring);
      if (allowed < Infinity) this.note(ALLOWED, way, allowed);
    }
    return false;
  }

  private unlist(channel: number, ring: number): void {
    this.sources.unlist(ring);
    this.ports.ints[channel * PORT_INTS + WAITING]!--;
  }

  private send(flow: number, way: number, bytes: number, channel: number, lane: number): void {
    const { queue, sources, stats } = this;
    const packet = queue.take();
    const { ints } = queue;
    const base = packet * STRIDE;
    ints[base + FLOW] = flow;
    ints[base + POSITION] = this.flows.journeys.begins[way]! + 1;
    ints[base + BUFFER] = -1;
    ints[base + BYTES] = bytes;
    ints[base + SEQUENCE] = Math.floor((this.flows.bytes[flow]! - sources.left[flow]!) / this.mtuBytes);
    sources.left[flow]! -= bytes;
    stats.packets++;
    if (++this.inFlight > stats.mostInFlight) stats.mostInFlight = this.inFlight;
    this.control?.sent(flow, packet, bytes);
    this.roamer.leaves(packet);
    this.arbiter?.sent(channel, this.flows.priorities[flow]!, bytes);
    this.cables.transmit(packet, channel, lane, bytes, this.start);
  }

  private deliver(packet: number): void {
    const { queue } = this;
    const { ints } = queue;
    const base = packet * STRIDE;
    const flow = ints[base + FLOW]!;
    const bytes = ints[base + BYTES]!;
    const last = this.progress.arrived(flow, ints[base + SEQUENCE]! & ~MARKED, bytes);
    this.inFlight--;
    if (!this.control?.delivered(flow, packet, bytes)) queue.give(packet);
    if (last) this.finish(flow);
  }

  private finish(flow: number): void {
    const { progress, options, queue } = this;
    for (const next of progress.ended(flow, queue.now)) this.schedule(next, queue.now);
    if (options.progress && progress.done % 64 === 0) options.progress(progress.done);
  }

  private result(): PacketTimes {
    const { ports, stats, control, progress } = this;
    const channels = 2 * this.at.network.cableCount;
    stats.bytesPerPacket =
      (this.queue.recordBytes - channels * RECORD_BYTES) / Math.max(1, stats.mostInFlight);
    Object.assign(stats, ports.summary());
    stats.hops = this.cables.hops;
    stats.cuts = control?.notified ?? 0;
    stats.retries = this.cables.retries;
    for (const wait of stats.waits) wait.seconds /= PICOSECONDS;
    return {
      begin: progress.begin,
      end: progress.end,
      seconds: progress.last / PICOSECONDS,
      events: this.events,
      passed: Float64Array.from({ length: channels }, (_, c) => ports.doubles[c * PORT + PASSED]!),
      stats,
    };
  }
}
