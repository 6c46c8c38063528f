import { UserError } from '../errors.js';
import {
  type LatencySpec,
  latencyOf,
  type NetworkSpec,
  type NodeSpec,
  payloadShareOf,
} from '../spec/network.js';
import { type Ports, portsOfNic, wireFabric, wiringOf } from './fabric.js';
import { wireFatTree } from './fat-tree.js';
import { ENDPOINT_CABLE, GPU, GraphBuilder, type Network, NIC, NVLINK, NVSWITCH, PCIE } from './graph.js';

/** Bytes per second of Gb/s. */
const GBPS = 1e9 / 8;
const NS = 1e-9;

/**
 * The network that a description stands for.
 * @throws UserError where no network has these parameters
 */
export function buildNetwork(spec: NetworkSpec): Network {
  const builder = new GraphBuilder();
  const latency = latencyOf(spec);
  checkNode(spec);
  const rate = spec.fabricGbps * GBPS * payloadShareOf(spec);
  const flight = latency.fabricMetres * latency.cableNsPerMetre * NS;
  const ports = wireFabric(
    builder,
    spec.topology,
    { bytesPerSecond: rate, seconds: flight },
    latency.switchNs * NS,
  );
  const count = ports.switches.length / ports.portsPerNic;
  for (let nic = 0; nic < count; nic++) plugIn(builder, spec, latency, ports, nic);
  if (spec.node) addNodes(builder, spec.node, latency);
  if (spec.node?.storageNic) addStorage(builder, spec, { bytesPerSecond: rate, seconds: flight }, latency);
  if (!spec.node) for (const nic of builder.nics) builder.endpoints.push(nic);
  return builder.build();
}

/** What a description says of nodes must fit its topology. */
function checkNode({ topology, node }: NetworkSpec): void {
  if (!node) return;
  const groups = planesOrRails(topology);
  if (groups && node.nics % groups.count !== 0) {
    throw new UserError(
      `field node.nics: ${node.nics} NICs a node do not divide among ${groups.count} ${groups.name}; give ${groups.count} or a multiple`,
    );
  }
}

function planesOrRails(topology: NetworkSpec['topology']): { name: string; count: number } | undefined {
  if (topology.kind === 'multi-plane-fat-tree') {
    return topology.multiPort ? undefined : { name: 'planes', count: topology.planes };
  }
  const railed = topology.kind === 'multi-rail-fat-tree' || topology.kind === 'rail-only';
  return railed ? { name: 'rails', count: topology.rails } : undefined;
}

/** A NIC and the cables of its ports. */
function plugIn(
  builder: GraphBuilder,
  spec: NetworkSpec,
  latency: LatencySpec,
  ports: Ports,
  nic: number,
): void {
  const perNode = spec.node?.nics ?? 1;
  const vertex = builder.addVertex({
    kind: NIC,
    layer: nic % perNode,
    group: Math.floor(nic / perNode),
    plane: ports.planeOf(nic),
    seconds: latency.hostNs * NS,
  });
  builder.nics.push(vertex);
  const bytesPerSecond = (spec.endpointGbps * GBPS * payloadShareOf(spec)) / portsOfNic(spec.topology);
  const seconds = latency.endpointMetres * latency.cableNsPerMetre * NS;
  for (let port = 0; port < ports.portsPerNic; port++) {
    const to = ports.switches[nic * ports.portsPerNic + port]!;
    builder.addCable(vertex, to, { kind: ENDPOINT_CABLE, bytesPerSecond, seconds });
  }
}

/** GPUs with NVLink to each other and PCIe to their NIC. */
function addNodes(builder: GraphBuilder, node: NodeSpec, { nvlinkNs }: LatencySpec): void {
  const nics = builder.nics;
  if (nics.length % node.nics !== 0) {
    const below = nics.length - (nics.length % node.nics);
    throw new UserError(
      `field node.nics: ${nics.length} NICs make no whole nodes of ${node.nics}; the nearest numbers of endpoints are ${below || node.nics} and ${below + node.nics}`,
    );
  }
  builder.gpusPerNode = node.gpus;
  // Both halves of the way over NVLink; nothing is added in its switch.
  const nvlink = {
    kind: NVLINK,
    bytesPerSecond: node.nvlinkGBps * 1e9 * node.nvlinkEfficiency,
    seconds: (nvlinkNs * NS) / 2,
  };
  const pcie = { kind: PCIE, bytesPerSecond: node.pcieGBps * 1e9, seconds: 0 };
  for (let n = 0; n < nics.length / node.nics; n++) {
    const nvswitch = builder.addVertex({ kind: NVSWITCH, group: n });
    for (let g = 0; g < node.gpus; g++) {
      const gpu = builder.addVertex({ kind: GPU, layer: g, group: n });
      builder.endpoints.push(gpu);
      builder.addCable(gpu, nvswitch, nvlink);
      builder.addCable(gpu, nics[n * node.nics + Math.floor((g * node.nics) / node.gpus)]!, pcie);
    }
  }
}

/** The plane of the storage network. */
export const STORAGE_PLANE = -1;

/** One more NIC a node, reached by all its GPUs, on a fat-tree of its own; flows of the compute network never use it. */
function addStorage(
  builder: GraphBuilder,
  spec: NetworkSpec,
  cable: { bytesPerSecond: number; seconds: number },
  { hostNs, switchNs, endpointMetres, cableNsPerMetre }: LatencySpec,
): void {
  const { topology, endpointGbps } = spec;
  const { gpus, nics, pcieGBps } = spec.node!;
  const nodes = builder.nics.length / nics;
  const radix = 'radix' in topology ? topology.radix : 64;
  const shape = { radix, layers: nodes > (radix * radix) / 2 ? 3 : 2, oversubscription: 1 } as const;
  const wiring = wiringOf(builder, cable, switchNs * NS);
  const leaves = wireFatTree(wiring, shape, nodes, STORAGE_PLANE);
  for (let n = 0; n < nodes; n++) {
    const nic = builder.addVertex({
      kind: NIC,
      layer: nics,
      group: n,
      plane: STORAGE_PLANE,
      seconds: hostNs * NS,
    });
    builder.addCable(nic, leaves[n]!, {
      kind: ENDPOINT_CABLE,
      bytesPerSecond: endpointGbps * GBPS * payloadShareOf(spec),
      seconds: endpointMetres * cableNsPerMetre * NS,
    });
    for (let g = 0; g < gpus; g++) {
      const gpu = builder.endpoints[n * gpus + g]!;
      builder.addCable(gpu, nic, { kind: PCIE, bytesPerSecond: pcieGBps * 1e9, seconds: 0 });
    }
  }
}
