import type { PacketSpec } from '../../spec/packet.js';
import { headOf, type Network, SWITCH, verticesOf } from '../graph.js';
import type { SwitchRoutes } from '../switch-routes.js';
import { type EventQueue, POSITION, STRIDE } from './events.js';
import { DETOUR, targetOf } from './journeys.js';
import type { Ports } from './ports.js';

/** Lists of channels that lead closer to a switch, made when they are asked for; alike ones are one. */
class Choices {
  /** By target, by place: where the channels are listed, 0 where that is not known yet; undefined where nobody asked. */
  private readonly tables: (Int32Array | undefined)[];
  /** Vertices up to the last switch of the fabric; switches come before what is plugged into them. */
  private readonly places: number;
  private readonly known = new Map<string, number>();
  /** Lists of channels, each after its length. */
  lists = new Int32Array(4096);
  private used = 1;

  constructor(
    network: Network,
    private readonly routes: SwitchRoutes,
  ) {
    const switches = verticesOf(network, SWITCH).filter((v) => network.plane[v]! >= 0);
    this.places = 1 + switches.reduce((last, v) => Math.max(last, v), -1);
    this.tables = new Array(this.places).fill(undefined);
  }

  /** @returns where the channels that lead from `at` closer to `target` are listed, after their number */
  closer(at: number, target: number): number {
    const list = this.tables[target]?.[at];
    return list ? list : this.find(at, target);
  }

  private find(at: number, target: number): number {
    const table = this.tables[target] ?? new Int32Array(this.places);
    this.tables[target] = table;
    const channels = this.routes.closer(at, target);
    const key = channels.join();
    table[at] = this.known.get(key) ?? this.add(channels);
    this.known.set(key, table[at]);
    return table[at];
  }

  private add(channels: Int32Array): number {
    const begin = this.used;
    this.used += channels.length + 1;
    while (this.used > this.lists.length) {
      const larger = new Int32Array(2 * this.lists.length);
      larger.set(this.lists);
      this.lists = larger;
    }
    this.lists[begin] = channels.length;
    this.lists.set(channels, begin + 1);
    return begin;
  }
}

/** Where packets roam. */
interface Ground {
  network: Network;
  routes: SwitchRoutes;
  spec: PacketSpec;
}

/** Packets that find their own way, switch by switch: at random, by the shortest queue, or over a detour. */
export class Roamer {
  private readonly choices: Choices;
  /** [C] vertex at the end of each channel. */
  private readonly heads: Int32Array;
  private readonly stops: number[];
  private readonly routes: SwitchRoutes;
  /** [packets] the switch of each packet's detour; -1 before it is drawn. */
  private detours = new Int32Array(1024);
  private readonly adaptive: boolean;
  private readonly weighed: boolean;
  private state: number;

  /** @param open whether packets take detours */
  constructor(
    { network, routes, spec }: Ground,
    private readonly ports: Ports,
    private readonly queue: EventQueue,
    private readonly open: boolean,
    seed: number,
  ) {
    this.routes = routes;
    this.choices = new Choices(network, routes);
    this.heads = Int32Array.from({ length: 2 * network.cableCount }, (_, c) => headOf(network, c));
    this.stops = verticesOf(network, SWITCH);
    this.adaptive = spec.spray === 'least-queued' || spec.detour === 'ugal';
    this.weighed = spec.detour === 'ugal';
    this.state = seed | 1;
  }

  /** A packet sets out. */
  leaves(packet: number): void {
    if (!this.open) return;
    if (packet >= this.detours.length) {
      const larger = new Int32Array(Math.max(packet + 1, 2 * this.detours.length));
      larger.set(this.detours);
      this.detours = larger;
    }
    this.detours[packet] = -1;
  }

  /**
   * @param path of which the packet's position is an entry
   * @param channel by which it has come
   * @returns the channel by which it goes on; its position is moved where it should be
   */
  next(packet: number, path: Int32Array, channel: number): number {
    const at = this.heads[channel]!;
    const { ints } = this.queue;
    let position = ints[packet * STRIDE + POSITION]!;
    for (let entry = path[position]!; entry < 0; entry = path[++position]!) {
      const target =
        entry === DETOUR ? this.detourOf(packet, at, targetOf(path[position + 1]!)) : targetOf(entry);
      if (target === at) continue;
      ints[packet * STRIDE + POSITION] = position;
      return this.pick(this.choices.closer(at, target));
    }
    ints[packet * STRIDE + POSITION] = position + 1;
    return path[position]!;
  }

  private pick(list: number): number {
    const { lists } = this.choices;
    const count = lists[list]!;
    if (count === 1) return lists[list + 1]!;
    // From a drawn one on, so that switches that are alike do not all favour the same.
    const drawn = this.below(count);
    let best = lists[list + 1 + drawn]!;
    if (!this.adaptive) return best;
    let least = this.ports.backlog(best);
    for (let i = 1; i < count && least > 0; i++) {
      const channel = lists[list + 1 + ((drawn + i) % count)]!;
      const backlog = this.ports.backlog(channel);
      if (backlog < least) {
        least = backlog;
        best = channel;
      }
    }
    return best;
  }

  /** Draws a packet's stop at its first switch: any switch with a way to and fro, or `at` for none. */
  private detourOf(packet: number, at: number, target: number): number {
    const known = this.detours[packet]!;
    if (known >= 0) return known;
    let stop = at;
    for (let tries = 0; tries < 64; tries++) {
      const drawn = this.stops[this.below(this.stops.length)]!;
      if (this.routes.distance(at, drawn) < 0 || this.routes.distance(drawn, target) < 0) continue;
      stop = drawn;
      break;
    }
    if (this.weighed && this.isShorter(at, target, stop)) stop = at;
    this.detours[packet] = stop;
    return stop;
  }

  /** UGAL: queue times cables of the shortest way against that of the detour [Singh 2005; Kim et al., ISCA'08 §4.2]. */
  private isShorter(at: number, target: number, stop: number): boolean {
    if (stop === at || at === target) return true;
    const { routes } = this;
    const direct = this.ports.backlog(this.pick(this.choices.closer(at, target)));
    const around = this.ports.backlog(this.pick(this.choices.closer(at, stop)));
    const cables = routes.distance(at, stop) + routes.distance(stop, target);
    return direct * routes.distance(at, target) <= around * cables;
  }

  /** A number below n: xorshift [Marsaglia 2003], scaled by its upper bits. */
  private below(n: number): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return ((x >>> 8) * n) >>> 24;
  }
}
