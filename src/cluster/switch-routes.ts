import { FABRIC_CABLE, headOf, type Network, SWITCH } from './graph.js';

/** A broken vertex or cable is passed by nothing. */
export interface Broken {
  vertices: ReadonlySet<number>;
  cables: ReadonlySet<number>;
}

export const NOTHING_BROKEN: Broken = { vertices: new Set(), cables: new Set() };

/** Shortest ways between switches, found when they are asked for. */
export class SwitchRoutes {
  /** By destination: [V] cables to go, -1 where there is no way. */
  private readonly distances = new Map<number, Int16Array>();
  /** By destination · V + switch: the channels that lead one closer. */
  private readonly choices = new Map<number, Int32Array>();

  constructor(
    private readonly network: Network,
    private readonly broken: Broken = NOTHING_BROKEN,
  ) {}

  /** Cables between two switches on a shortest way; -1 where there is none. */
  distance(from: number, to: number): number {
    return this.distancesTo(to)[from]!;
  }

  /** Channels from `at` that lead one cable closer to the switch `to`, in the order of their cables. */
  closer(at: number, to: number): Int32Array {
    const key = to * this.network.vertexCount + at;
    const known = this.choices.get(key);
    if (known) return known;
    const { network } = this;
    const distance = this.distancesTo(to);
    const found: number[] = [];
    for (let i = network.offsets[at]!; i < network.offsets[at + 1]!; i++) {
      const channel = network.outgoing[i]!;
      if (this.isOpen(channel) && distance[headOf(network, channel)] === distance[at]! - 1)
        found.push(channel);
    }
    const channels = Int32Array.from(found);
    this.choices.set(key, channels);
    return channels;
  }

  /** Whether the channel joins switches and works. */
  private isOpen(channel: number): boolean {
    const cable = channel >> 1;
    return (
      this.network.cableKind[cable] === FABRIC_CABLE &&
      !this.broken.cables.has(cable) &&
      !this.broken.vertices.has(headOf(this.network, channel))
    );
  }

  private distancesTo(to: number): Int16Array {
    const known = this.distances.get(to);
    if (known) return known;
    const { network } = this;
    const distance = new Int16Array(network.vertexCount).fill(-1);
    if (!this.broken.vertices.has(to)) {
      distance[to] = 0;
      const queue = [to];
      for (let head = 0; head < queue.length; head++) {
        const v = queue[head]!;
        for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
          const channel = network.outgoing[i]!;
          const next = headOf(network, channel);
          if (network.kind[next] !== SWITCH || distance[next]! >= 0 || !this.isOpen(channel)) continue;
          distance[next] = distance[v]! + 1;
          queue.push(next);
        }
      }
    }
    this.distances.set(to, distance);
    return distance;
  }
}
