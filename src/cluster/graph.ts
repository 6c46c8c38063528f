/**
 * A network as a graph of ports and cables. Legend: V vertices, E cables, C = 2E channels; a cable is two channels, 2e from
 * `from` to `to` and 2e + 1 back.
 */

export const GPU = 0;
export const NIC = 1;
export const SWITCH = 2;
/** The NVLink switches of a node, seen as one. */
export const NVSWITCH = 3;
export const VERTEX_KINDS = ['GPU', 'NIC', 'switch', 'NVLink switch'] as const;

/** Between NIC and switch. */
export const ENDPOINT_CABLE = 0;
/** Between switches. */
export const FABRIC_CABLE = 1;
export const NVLINK = 2;
export const PCIE = 3;
export const CABLE_KINDS = ['endpoint', 'fabric', 'NVLink', 'PCIe'] as const;

export interface Network {
  readonly vertexCount: number;
  /** [V] GPU, NIC, SWITCH or NVSWITCH. */
  readonly kind: Uint8Array;
  /** [V] of switches: 0 at the endpoints, 1 above, ...; of GPUs and NICs: their number in the node. */
  readonly layer: Int32Array;
  /** [V] the plane or rail that a switch or NIC belongs to; 0 where there is one. */
  readonly plane: Int32Array;
  /** [V] of switches: pod or group; of GPUs, NICs and NVLink switches: the node. */
  readonly group: Int32Array;
  /** [V] seconds that it takes to pass through. */
  readonly vertexSeconds: Float64Array;

  readonly cableCount: number;
  /** [E] vertices. */
  readonly from: Int32Array;
  readonly to: Int32Array;
  /** [E] ENDPOINT_CABLE, FABRIC_CABLE, NVLINK or PCIE. */
  readonly cableKind: Uint8Array;
  /** [E] bytes per second each way. */
  readonly bytesPerSecond: Float64Array;
  /** [E] seconds of flight. */
  readonly cableSeconds: Float64Array;

  /** [V + 1], [C]: channels that leave a vertex, in the order in which cables were laid. */
  readonly offsets: Int32Array;
  readonly outgoing: Int32Array;

  /** [nodes·nics] NICs of the compute network, node by node. */
  readonly nics: Int32Array;
  /** [nodes·gpus] GPUs node by node; the NICs where there are no nodes. Flows begin and end here. */
  readonly endpoints: Int32Array;
  /** GPUs of a node; 1 where there are no nodes. */
  readonly gpusPerNode: number;
}

/** Where a channel ends. */
export const headOf = (network: Network, channel: number): number =>
  channel & 1 ? network.from[channel >> 1]! : network.to[channel >> 1]!;

/** Where a channel begins. */
export const tailOf = (network: Network, channel: number): number =>
  channel & 1 ? network.to[channel >> 1]! : network.from[channel >> 1]!;

/** Seconds from the tail of a channel until its head has passed on what came. */
export const channelSeconds = (network: Network, channel: number): number =>
  network.cableSeconds[channel >> 1]! + network.vertexSeconds[headOf(network, channel)]!;

/** Ports in use. */
export const degreeOf = (network: Network, vertex: number): number =>
  network.offsets[vertex + 1]! - network.offsets[vertex]!;

/** All vertices of a kind. */
export function verticesOf(network: Network, kind: number): number[] {
  const found: number[] = [];
  for (let v = 0; v < network.vertexCount; v++) if (network.kind[v] === kind) found.push(v);
  return found;
}

/** Cables of a kind. */
export function countCables(network: Network, kind: number): number {
  let count = 0;
  for (const found of network.cableKind) if (found === kind) count++;
  return count;
}

/** A vertex as people would name it. */
export function nameOf(network: Network, vertex: number): string {
  const [kind, layer, plane, group] = [
    network.kind[vertex]!,
    network.layer[vertex]!,
    network.plane[vertex]!,
    network.group[vertex]!,
  ];
  if (kind === SWITCH) return `switch ${vertex} (plane ${plane}, layer ${layer}, group ${group})`;
  if (kind === NVSWITCH) return `NVLink switch of node ${group}`;
  return `${VERTEX_KINDS[kind]} ${layer} of node ${group}`;
}

interface VertexFields {
  kind: number;
  layer?: number;
  plane?: number;
  group?: number;
  seconds?: number;
}

interface CableFields {
  kind: number;
  bytesPerSecond: number;
  seconds: number;
}

/** Collects vertices and cables; `build` lays them out as arrays. */
export class GraphBuilder {
  private readonly vertices: Required<VertexFields>[] = [];
  private readonly ends: number[] = [];
  private readonly cables: CableFields[] = [];
  readonly nics: number[] = [];
  readonly endpoints: number[] = [];
  gpusPerNode = 1;

  /** @returns the new vertex */
  addVertex({ kind, layer = 0, plane = 0, group = 0, seconds = 0 }: VertexFields): number {
    return this.vertices.push({ kind, layer, plane, group, seconds }) - 1;
  }

  addCable(from: number, to: number, fields: CableFields): void {
    this.ends.push(from, to);
    this.cables.push(fields);
  }

  build(): Network {
    const { vertices, cables, ends } = this;
    const from = Int32Array.from(cables, (_, e) => ends[2 * e]!);
    const to = Int32Array.from(cables, (_, e) => ends[2 * e + 1]!);
    return {
      vertexCount: vertices.length,
      kind: Uint8Array.from(vertices, ({ kind }) => kind),
      layer: Int32Array.from(vertices, ({ layer }) => layer),
      plane: Int32Array.from(vertices, ({ plane }) => plane),
      group: Int32Array.from(vertices, ({ group }) => group),
      vertexSeconds: Float64Array.from(vertices, ({ seconds }) => seconds),
      cableCount: cables.length,
      from,
      to,
      cableKind: Uint8Array.from(cables, ({ kind }) => kind),
      bytesPerSecond: Float64Array.from(cables, ({ bytesPerSecond }) => bytesPerSecond),
      cableSeconds: Float64Array.from(cables, ({ seconds }) => seconds),
      ...adjacency(vertices.length, from, to),
      nics: Int32Array.from(this.nics),
      endpoints: Int32Array.from(this.endpoints),
      gpusPerNode: this.gpusPerNode,
    };
  }
}

/** Channels by the vertex that they leave, as compressed rows. */
function adjacency(vertexCount: number, from: Int32Array, to: Int32Array) {
  const offsets = new Int32Array(vertexCount + 1);
  for (let e = 0; e < from.length; e++) {
    offsets[from[e]! + 1]!++;
    offsets[to[e]! + 1]!++;
  }
  for (let v = 0; v < vertexCount; v++) offsets[v + 1]! += offsets[v]!;
  const next = offsets.slice();
  const outgoing = new Int32Array(2 * from.length);
  for (let e = 0; e < from.length; e++) {
    outgoing[next[from[e]!]!++] = 2 * e;
    outgoing[next[to[e]!]!++] = 2 * e + 1;
  }
  return { offsets, outgoing };
}
