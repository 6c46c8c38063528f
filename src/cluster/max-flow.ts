import { ENDPOINT_CABLE, type Network, SWITCH } from './graph.js';

/**
 * The largest flow from one set of NICs to another through switches alone (Dinic 1970). Parallel cables are merged and NICs of a switch
 * lumped together, so that the graph is that of the switches.
 * @returns flow and what the sources can send, bytes per second
 */
export function maxFlow(
  network: Network,
  sources: readonly number[],
  sinks: readonly number[],
): { flow: number; supply: number } {
  const graph = new FlowGraph(network.vertexCount + 2);
  const [source, sink] = [network.vertexCount, network.vertexCount + 1];
  let supply = 0;
  const attach = (nics: readonly number[], add: (nicSwitch: number, rate: number) => void) => {
    for (const nic of nics) {
      for (let i = network.offsets[nic]!; i < network.offsets[nic + 1]!; i++) {
        const cable = network.outgoing[i]! >> 1;
        if (network.cableKind[cable] === ENDPOINT_CABLE)
          add(network.to[cable]!, network.bytesPerSecond[cable]!);
      }
    }
  };
  attach(sources, (v, rate) => {
    supply += rate;
    graph.add(source, v, rate, 0);
  });
  attach(sinks, (v, rate) => graph.add(v, sink, rate, 0));
  for (let e = 0; e < network.cableCount; e++) {
    const [a, b] = [network.from[e]!, network.to[e]!];
    if (network.kind[a] === SWITCH && network.kind[b] === SWITCH) {
      graph.add(a, b, network.bytesPerSecond[e]!, network.bytesPerSecond[e]!);
    }
  }
  return { flow: graph.run(source, sink), supply };
}

/** Arcs in pairs: 2i and its reverse 2i + 1; parallel arcs are merged. */
class FlowGraph {
  private readonly head: number[] = [];
  private readonly room: number[] = [];
  private readonly arcs: number[][];
  private readonly known = new Map<number, number>();
  private level = new Int32Array(0);
  private next = new Int32Array(0);

  constructor(private readonly size: number) {
    this.arcs = Array.from({ length: size }, () => []);
  }

  add(a: number, b: number, forth: number, back: number): void {
    const key = a * this.size + b;
    const arc = this.known.get(key);
    if (arc !== undefined) {
      this.room[arc]! += forth;
      this.room[arc + 1]! += back;
      return;
    }
    this.known.set(key, this.head.length);
    this.arcs[a]!.push(this.head.length);
    this.arcs[b]!.push(this.head.length + 1);
    this.head.push(b, a);
    this.room.push(forth, back);
  }

  run(source: number, sink: number): number {
    let total = 0;
    while (this.layers(source, sink)) {
      this.next = new Int32Array(this.size);
      for (let pushed = this.push(source, sink, Infinity); pushed > 0; ) {
        total += pushed;
        pushed = this.push(source, sink, Infinity);
      }
    }
    return total;
  }

  /** Distances from the source over arcs with room; whether the sink is reached. */
  private layers(source: number, sink: number): boolean {
    this.level = new Int32Array(this.size).fill(-1);
    this.level[source] = 0;
    const queue = [source];
    for (let i = 0; i < queue.length; i++) {
      for (const arc of this.arcs[queue[i]!]!) {
        const to = this.head[arc]!;
        if (this.level[to]! >= 0 || this.room[arc]! <= 0) continue;
        this.level[to] = this.level[queue[i]!]! + 1;
        queue.push(to);
      }
    }
    return this.level[sink]! >= 0;
  }

  private push(v: number, sink: number, most: number): number {
    if (v === sink) return most;
    const arcs = this.arcs[v]!;
    for (; this.next[v]! < arcs.length; this.next[v]!++) {
      const arc = arcs[this.next[v]!]!;
      const to = this.head[arc]!;
      if (this.room[arc]! <= 0 || this.level[to] !== this.level[v]! + 1) continue;
      const pushed = this.push(to, sink, Math.min(most, this.room[arc]!));
      if (pushed <= 0) continue;
      this.room[arc]! -= pushed;
      this.room[arc ^ 1]! += pushed;
      return pushed;
    }
    return 0;
  }
}
