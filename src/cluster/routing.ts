import { UserError } from '../errors.js';
import { Random } from '../numerics/random.js';
import type { RoutingSpec } from '../spec/scenario.js';
import {
  channelSeconds,
  ENDPOINT_CABLE,
  GPU,
  headOf,
  type Network,
  NIC,
  NVSWITCH,
  nameOf,
  SWITCH,
  tailOf,
  verticesOf,
} from './graph.js';
import { type Broken, NOTHING_BROKEN, SwitchRoutes } from './switch-routes.js';
import type { Transfer } from './transfers.js';

/** A way through the network; with `shares` it is spread over several, channel by channel. */
export interface Route {
  channels: number[];
  /** Of the flow, on each channel; null where all of it passes everywhere. */
  shares: number[] | null;
  /** Until the first byte is there. */
  seconds: number;
}

/** Routes between endpoints (GPUs, or NICs where there are no nodes), by number. */
export class Router {
  private readonly routes: SwitchRoutes;
  private readonly random: Random;
  /** Switches, as stops in between for Valiant's routing. */
  private readonly stops: number[];
  /** [C] bytes given to each channel so far, for adaptive choices. */
  private readonly given: Float64Array;
  /** Working ports of NICs asked for so far, and the NIC beside each GPU. */
  private readonly ports = new Map<number, number[]>();
  private readonly nics = new Map<number, number>();
  /** [V] number of a NIC among those of its plane, so that neighbours take different ways up. */
  private readonly rank: Int32Array;
  /** By layer: destinations that a switch there sends the same way up. */
  private readonly strides: number[];
  private bySource = false;

  constructor(
    readonly network: Network,
    private readonly spec: RoutingSpec,
    private readonly broken: Broken = NOTHING_BROKEN,
  ) {
    this.routes = new SwitchRoutes(network, broken);
    this.random = new Random(spec.seed);
    this.stops = verticesOf(network, SWITCH).filter((v) => !broken.vertices.has(v));
    this.given = new Float64Array(2 * network.cableCount);
    this.rank = ranksInPlane(network);
    this.strides = layerStrides(network);
  }

  /**
   * @param bytes what adaptive routing counts with
   * @param key tells flows between the same two endpoints apart, for hashes
   * @param bySource choose by the source, whatever the destination
   * @throws UserError where there is no way
   */
  route(from: number, to: number, bytes = 0, key = 0, bySource = false): Route {
    const { network } = this;
    this.bySource = bySource;
    const source = this.endpoint(from);
    const target = this.endpoint(to);
    if (from === to) return { channels: [], shares: null, seconds: 0 };
    const way = new Way();
    if (network.kind[source] === NIC) this.cross(way, source, target, bytes, key);
    else if (network.group[source] === network.group[target]) this.overNvlink(way, source, target);
    else this.betweenNodes(way, source, target, bytes, key);
    return way.finish(network, source);
  }

  /**
   * The union of the ways from a root to the ends of each part, or back, each channel with the share of all bytes that passes
   * it. Ways up are chosen by the root, so that they part as late as can be.
   * @throws UserError where there is no way to some end
   */
  tree(root: number, { kind, parts }: NonNullable<Transfer['tree']>, key = 0): Route {
    const ways = new Map<number, Route>();
    for (const end of new Set(parts.flatMap(({ ends }) => ends))) {
      ways.set(end, this.route(root, end, 0, key, true));
    }
    const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
    const loads = new Map<number, number>();
    for (const { ends, bytes } of parts) {
      for (const [channel, share] of unionOf(ends.map((end) => ways.get(end)!))) {
        loads.set(channel, (loads.get(channel) ?? 0) + (bytes * share) / total);
      }
    }
    const back = kind === 'reduce' ? 1 : 0;
    return {
      channels: [...loads.keys()].map((channel) => channel ^ back),
      shares: [...loads.values()],
      seconds: Math.max(...[...ways.values()].map(({ seconds }) => seconds)),
    };
  }

  private endpoint(index: number): number {
    const { endpoints } = this.network;
    if (index < endpoints.length) {
      if (!this.broken.vertices.has(endpoints[index]!)) return endpoints[index]!;
      throw new UserError(`endpoint ${index} is broken; take it out of the workload or repair it`);
    }
    throw new UserError(
      `there is no endpoint ${index}; the ${endpoints.length} are numbered from 0, so the last is ${endpoints.length - 1}`,
    );
  }

  private overNvlink(way: Way, from: number, to: number): void {
    if (from === to) return;
    const up = this.channelTo(from, NVSWITCH);
    way.add(up);
    const hub = headOf(this.network, up);
    way.add(this.channels(hub).find((channel) => headOf(this.network, channel) === to)!);
  }

  /** From GPU to GPU of another node, over the NICs of one rail where the network or PXN asks for it. */
  private betweenNodes(way: Way, from: number, to: number, bytes: number, key: number): void {
    const { network } = this;
    const [out, into] = [this.nicOf(from), this.nicOf(to)];
    const [own, theirs] = [network.plane[out]!, network.plane[into]!];
    const joined = this.areJoined(out, into);
    if (own === theirs ? joined : joined && !this.spec.pxn) {
      way.add(this.channelOf(from, out));
      this.cross(way, out, into, bytes, key);
      way.add(this.channelOf(into, to));
      return;
    }
    const relayed =
      (this.spec.pxn && this.relay(way, from, to, theirs, bytes, key)) ||
      this.relay(way, from, to, own, bytes, key) ||
      this.railsOf(from).some((plane) => this.relay(way, from, to, plane, bytes, key));
    if (!relayed) {
      throw new UserError(
        `there is no way from ${nameOf(network, from)} to ${nameOf(network, to)}; repair a fault or join their planes`,
      );
    }
  }

  /** Over NVLink to the GPU of this rail, across, and over NVLink to the target. @returns false where the rail is broken */
  private relay(way: Way, from: number, to: number, plane: number, bytes: number, key: number): boolean {
    const [helper, landing] = [from, to].map((gpu) => this.gpuOnRail(gpu, plane));
    if (helper === undefined || landing === undefined) return false;
    const [out, into] = [this.nicOf(helper), this.nicOf(landing)];
    if (!this.areJoined(out, into)) return false;
    this.overNvlink(way, from, helper);
    way.add(this.channelOf(helper, out));
    this.cross(way, out, into, bytes, key);
    way.add(this.channelOf(into, landing));
    this.overNvlink(way, landing, to);
    return true;
  }

  /** From NIC to NIC through the fabric. */
  private cross(way: Way, out: number, into: number, bytes: number, key: number): void {
    const guide = this.bySource ? out : into;
    const hash = mix(mix(mix(this.spec.seed, out), guide), key);
    const ups = this.openPorts(out);
    const used = this.spec.mode === 'spray' ? ups : [ups[hash % ups.length]!];
    for (const up of used) {
      const down = this.matchingPort(into, up);
      way.add(up, 1 / used.length);
      const [first, last] = [headOf(this.network, up), tailOf(this.network, down)];
      if (this.spec.mode === 'spray') this.spread(way, first, last, 1 / used.length);
      else if (this.spec.mode === 'valiant') this.overStop(way, first, last, guide, bytes, hash);
      else this.follow(way, first, last, guide, bytes, hash);
      way.add(down, 1 / used.length);
    }
  }

  /** One shortest way between switches. */
  private follow(way: Way, from: number, to: number, into: number, bytes: number, hash: number): void {
    for (let at = from; at !== to; ) {
      const channels = this.routes.closer(at, to);
      if (channels.length === 0) throw this.unreachable(from, to);
      const channel = channels[this.choose(channels, at, into, hash)]!;
      this.given[channel]! += bytes;
      way.add(channel);
      at = headOf(this.network, channel);
    }
  }

  private choose(channels: Int32Array, at: number, into: number, hash: number): number {
    const count = channels.length;
    if (count === 1) return 0;
    if (this.spec.mode === 'static') {
      // Digits of the destination's number, one per layer [d-mod-k: Zahavi 2012], so that destinations of a leaf take different
      // ways up, and different ones of parallel cables down.
      const { layer } = this.network;
      const lower = Math.min(layer[at]!, layer[headOf(this.network, channels[0]!)]!);
      return Math.floor(this.rank[into]! / this.strides[lower]!) % count;
    }
    if (this.spec.mode !== 'adaptive') return mix(hash, at) % count;
    let best = mix(hash, at) % count;
    for (let i = 0; i < count; i++) {
      if (this.given[channels[i]!]! < this.given[channels[best]!]!) best = i;
    }
    return best;
  }

  /** Evenly over all shortest ways, hop by hop. */
  private spread(way: Way, from: number, to: number, share: number): void {
    let front = new Map([[from, share]]);
    while (!front.has(to)) {
      const next = new Map<number, number>();
      for (const [at, part] of front) {
        const channels = this.routes.closer(at, to);
        if (channels.length === 0) throw this.unreachable(from, to);
        for (const channel of channels) {
          way.add(channel, part / channels.length);
          const head = headOf(this.network, channel);
          next.set(head, (next.get(head) ?? 0) + part / channels.length);
        }
      }
      front = next;
    }
  }

  /** Over a random switch [Valiant 1982]; where both halves use a channel, it counts twice. */
  private overStop(way: Way, from: number, to: number, into: number, bytes: number, hash: number): void {
    let stop = from;
    for (let tries = 0; tries < 64 && from !== to; tries++) {
      stop = this.stops[this.random.below(this.stops.length)]!;
      if (this.routes.distance(from, stop) >= 0 && this.routes.distance(stop, to) >= 0) break;
      stop = from;
    }
    this.follow(way, from, stop, into, bytes, hash);
    this.follow(way, stop, to, into, bytes, mix(hash, stop));
  }

  private unreachable(from: number, to: number): UserError {
    const { network } = this;
    return new UserError(
      `there is no way from ${nameOf(network, from)} to ${nameOf(network, to)}: the fabric is cut; repair a fault or add cables`,
    );
  }

  private channels(vertex: number): Int32Array {
    return this.network.outgoing.subarray(this.network.offsets[vertex]!, this.network.offsets[vertex + 1]!);
  }

  private channelTo(from: number, kind: number): number {
    return this.channels(from).find((channel) => this.network.kind[headOf(this.network, channel)] === kind)!;
  }

  private channelOf(from: number, to: number): number {
    return this.channels(from).find((channel) => headOf(this.network, channel) === to)!;
  }

  /** The NIC beside a GPU, of the compute network: the first that was laid. */
  private nicOf(gpu: number): number {
    let nic = this.nics.get(gpu);
    if (nic === undefined) {
      nic = headOf(this.network, this.channelTo(gpu, NIC));
      this.nics.set(gpu, nic);
    }
    return nic;
  }

  /** Whether some port of one NIC reaches some port of the other. */
  private areJoined(out: number, into: number): boolean {
    const leaf = (channel: number) => headOf(this.network, channel);
    return this.workingPorts(out).some((up) =>
      this.workingPorts(into).some((down) => this.routes.distance(leaf(up), leaf(down)) >= 0),
    );
  }

  /** Channels from a NIC into the fabric that work. @throws UserError where none does */
  private openPorts(nic: number): number[] {
    const open = this.workingPorts(nic);
    if (open.length > 0) return open;
    throw new UserError(
      `${nameOf(this.network, nic)} has no working port; repair it or take its endpoints out of the workload`,
    );
  }

  private workingPorts(nic: number): number[] {
    const known = this.ports.get(nic);
    if (known) return known;
    const { network, broken } = this;
    const open = [...this.channels(nic)].filter((channel) => {
      const cable = channel >> 1;
      const works = !broken.cables.has(cable) && !broken.vertices.has(headOf(network, channel));
      return works && network.cableKind[cable] === ENDPOINT_CABLE && !broken.vertices.has(nic);
    });
    this.ports.set(nic, open);
    return open;
  }

  /** The channel into a NIC from the plane that `up` leads to. */
  private matchingPort(nic: number, up: number): number {
    const { network } = this;
    const plane = network.plane[headOf(network, up)]!;
    const ports = this.openPorts(nic);
    const port = ports.find((channel) => network.plane[headOf(network, channel)] === plane);
    return (port ?? ports[0]!) ^ 1;
  }

  private railsOf(gpu: number): number[] {
    const { network } = this;
    const node = network.group[gpu]!;
    return [...new Set(this.gpusOf(node).map((other) => network.plane[this.nicOf(other)]!))];
  }

  private gpuOnRail(gpu: number, plane: number): number | undefined {
    const { network, broken } = this;
    if (network.plane[this.nicOf(gpu)] === plane && !broken.vertices.has(this.nicOf(gpu))) return gpu;
    return this.gpusOf(network.group[gpu]!).find((other) => {
      const nic = this.nicOf(other);
      const works = !broken.vertices.has(nic) && !broken.vertices.has(other);
      return works && network.plane[nic] === plane;
    });
  }

  private gpusOf(node: number): number[] {
    const { endpoints, gpusPerNode, kind } = this.network;
    const gpus = endpoints.subarray(node * gpusPerNode, (node + 1) * gpusPerNode);
    return [...gpus].filter((v) => kind[v] === GPU);
  }
}

/** Channels of any of these routes, each with its largest share: a packet passes a channel once. */
function unionOf(routes: readonly Route[]): Map<number, number> {
  const union = new Map<number, number>();
  for (const { channels, shares } of routes) {
    for (const [i, channel] of channels.entries()) {
      union.set(channel, Math.max(union.get(channel) ?? 0, shares ? shares[i]! : 1));
    }
  }
  return union;
}

/** A route in the making. */
class Way {
  private readonly channels: number[] = [];
  private readonly shares: number[] = [];
  private spread = false;

  add(channel: number, share = 1): void {
    const known = this.channels.indexOf(channel);
    if (known >= 0) {
      this.shares[known]! += share;
      this.spread = true;
      return;
    }
    this.channels.push(channel);
    this.shares.push(share);
    if (share !== 1) this.spread = true;
  }

  finish(network: Network, source: number): Route {
    const { channels, shares, spread } = this;
    // Spread ways are equally long, so that the mean over channels is the time of each.
    const begin = network.kind[source] === NIC ? network.vertexSeconds[source]! : 0;
    const seconds = channels.reduce((sum, c, i) => sum + shares[i]! * channelSeconds(network, c), begin);
    return { channels, shares: spread ? shares : null, seconds };
  }
}

/** A hash of two 32-bit numbers [the finaliser of MurmurHash3]. */
export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function ranksInPlane(network: Network): Int32Array {
  const rank = new Int32Array(network.vertexCount);
  const count = new Map<number, number>();
  for (const nic of network.nics) {
    const plane = network.plane[nic]!;
    rank[nic] = count.get(plane) ?? 0;
    count.set(plane, rank[nic]! + 1);
  }
  return rank;
}

/** Cables up from a switch of each layer, multiplied up. */
function layerStrides(network: Network): number[] {
  const strides = [1];
  for (const v of verticesOf(network, SWITCH)) {
    const layer = network.layer[v]!;
    if (strides[layer + 1] !== undefined || strides[layer] === undefined) continue;
    let ups = 0;
    for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
      const head = headOf(network, network.outgoing[i]!);
      if (network.kind[head] === SWITCH && network.layer[head]! > layer) ups++;
    }
    strides[layer + 1] = strides[layer]! * Math.max(1, ups);
  }
  return strides;
}
