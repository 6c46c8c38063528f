import { UserError } from '../errors.js';
import type { Scenario } from '../spec/scenario.js';
import { FlowList, type Flows } from './flows.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, headOf, type Network, NVLINK, PCIE, SWITCH, tailOf } from './graph.js';
import type { Router } from './routing.js';

/** A folded problem: one flow for all that are alike, one link for all channels that are. */
export interface Folded {
  flows: Flows;
  /** Flows that each class stands for. */
  counts: number[];
}

/**
 * A uniform all-to-all of all GPUs of a multi-plane fat-tree under static routing and PXN, by symmetry: flows of the same
 * length are alike if every channel of a layer carries as many of each length. That is not assumed but counted: static routing
 * looks at the source's leaf and at the destination alone, so that one way from each leaf to each NIC gives the load of every
 * channel of a plane; planes are built alike.
 * @throws UserError where the scenario is of another kind, or loads differ
 */
export function foldAllToAll(network: Network, router: Router, scenario: Scenario): Folded {
  const bytes = uniformBytes(scenario);
  const { gpusPerNode, endpoints } = network;
  const nodes = endpoints.length / gpusPerNode;
  // GPU 0 of each node is on plane 0, as are its NICs; every other plane is a copy.
  const leaves = leavesOf(network, router, nodes);
  const size = leaves[0]!.length;
  if (leaves.some(({ length }) => length !== size)) throw unlike('leaves hold different numbers of NICs');
  const classes = countChannels(network, router, leaves);
  // Links: NVLink out, NVLink in, PCIe out, NIC out, NIC in, PCIe in, then the layers of the fabric.
  const [nvlink, port, pcie, fabric] = [NVLINK, ENDPOINT_CABLE, PCIE, FABRIC_CABLE].map((kind) =>
    rateOf(network, kind),
  ) as [number, number, number, number];
  const layers = classes.layers;
  const list = new FlowList(
    Float64Array.from([nvlink, nvlink, pcie, port, port, pcie, ...layers.map(() => fabric)]),
  );
  const each = bytes / endpoints.length;
  const counts: number[] = [];
  if (gpusPerNode > 1) {
    list.add({
      path: [0, 1],
      shares: [gpusPerNode - 1, gpusPerNode - 1],
      bytes: nodes * each,
      latency: router.route(0, 1).seconds,
    });
    counts.push(endpoints.length * (gpusPerNode - 1));
  }
  for (const { seconds, perNic, perChannel } of classes.lengths) {
    const used = layers.flatMap((_, l) => (perChannel[l]! > 0 ? [l] : []));
    list.add({
      path: [2, 3, 4, 5, ...used.map((l) => 6 + l)],
      shares: [perNic, perNic, perNic, perNic, ...used.map((l) => perChannel[l]!)],
      bytes: gpusPerNode * each,
      latency: seconds,
      start: gpusPerNode > 1 ? router.route(0, 1).seconds : 0,
    });
    counts.push(endpoints.length * perNic);
  }
  return { flows: list.build(), counts };
}

function uniformBytes({ network, routing, workload, faults, name }: Scenario): number {
  const [traffic] = workload ?? [];
  const whole = workload?.length === 1 && traffic?.kind === 'all-to-all' && traffic.spread === 0;
  const { topology, node } = network;
  const planes = topology.kind === 'multi-plane-fat-tree' && !topology.multiPort ? topology.planes : 0;
  const alike = node !== undefined && node.gpus === planes && node.nics === planes;
  if (!whole || traffic.ranks !== undefined || traffic.first !== 0 || traffic.stride !== 1) {
    throw new UserError(
      `${name} cannot be folded: its workload must be one all-to-all of equal sizes over all GPUs`,
    );
  }
  if (!alike || routing.mode !== 'static' || !routing.pxn || faults.length > 0) {
    throw new UserError(
      `${name} cannot be folded: it takes a multi-plane fat-tree with a GPU and a NIC of each node on each plane, static routing with PXN and no faults`,
    );
  }
  return traffic.bytes;
}

const unlike = (what: string): UserError =>
  new UserError(
    `this all-to-all cannot be folded: ${what}, so that flows are not alike; run it without folding`,
  );

/** GPUs of plane 0, by the leaf of their NIC. */
function leavesOf(network: Network, router: Router, nodes: number): number[][] {
  const leaves = new Map<number, number[]>();
  for (let node = 0; node < nodes; node++) {
    const gpu = node * network.gpusPerNode;
    const { channels } = router.route(gpu, gpu === 0 ? network.gpusPerNode : 0);
    const leaf = headOf(network, channels.find((c) => network.kind[headOf(network, c)] === SWITCH)!);
    leaves.set(leaf, [...(leaves.get(leaf) ?? []), gpu]);
  }
  return [...leaves.values()];
}

interface Classes {
  /** Names of the fabric's layers, up and down. */
  layers: string[];
  /** Flows by length: latency, how many a NIC sends, and how many each channel of each layer carries. */
  lengths: { seconds: number; perNic: number; perChannel: number[] }[];
}

/** Loads of plane 0's channels between switches, by layer and by length of the flows. */
function countChannels(network: Network, router: Router, leaves: readonly number[][]): Classes {
  const byLength = new Map<number, { seconds: number; perNic: number; load: Float64Array }>();
  for (const [l, members] of leaves.entries()) {
    const source = members[0]!;
    for (const target of leaves.flat()) {
      if (target === source) continue;
      const { channels, seconds } = router.route(source, target);
      let known = byLength.get(channels.length);
      if (!known) {
        known = { seconds, perNic: 0, load: new Float64Array(2 * network.cableCount) };
        byLength.set(channels.length, known);
      }
      if (l === 0) known.perNic++;
      for (const c of channels)
        if (network.cableKind[c >> 1] === FABRIC_CABLE) known.load[c]! += members.length;
    }
  }
  const members = layersOf(network);
  const lengths = [...byLength.values()].map(({ seconds, perNic, load }) => ({
    seconds,
    perNic,
    perChannel: [...members.values()].map((channels) => sameLoad(load, channels)),
  }));
  return { layers: [...members.keys()], lengths };
}

/** Channels between switches of plane 0, by the layers that they join. */
function layersOf(network: Network): Map<string, number[]> {
  const layers = new Map<string, number[]>();
  for (let c = 0; c < 2 * network.cableCount; c++) {
    const [tail, head] = [tailOf(network, c), headOf(network, c)];
    if (network.cableKind[c >> 1] !== FABRIC_CABLE || network.plane[tail] !== 0) continue;
    const name = `${network.layer[tail]} to ${network.layer[head]}`;
    const known = layers.get(name);
    if (known) known.push(c);
    else layers.set(name, [c]);
  }
  return layers;
}

function sameLoad(load: Float64Array, channels: readonly number[]): number {
  const first = load[channels[0]!]!;
  if (channels.some((c) => load[c] !== first))
    throw unlike('cables of a layer carry different numbers of flows');
  return first;
}

function rateOf(network: Network, kind: number): number {
  const e = network.cableKind.indexOf(kind);
  return e < 0 ? Infinity : network.bytesPerSecond[e]!;
}
