import { z } from 'zod';
import { UserError } from '../errors.js';
import { describeIssues } from './model.js';

/**
 * The network description: a topology from its parameters, the nodes on it, rates and latencies of the parts. Units stand
 * in the names, as on vendors' sheets (Gb/s, ns); everything behind this file counts in bytes and seconds.
 */
const positive = z.int().positive();
const gigabits = z.number().positive();
const nanoseconds = z.number().nonnegative();

/** Fields that every fat-tree has. */
const fatTree = {
  /** Ports of a switch; even. */
  radix: z.int().min(2).default(64),
  /** Switch layers between an endpoint and the top. */
  layers: z.literal([2, 3]).default(2),
  /** Ports down over ports up at a leaf; 1 does not block. */
  oversubscription: z.number().min(1).default(1),
};

export const topologySchema = z.discriminatedUnion('kind', [
  /** One switch. */
  z.strictObject({ kind: z.literal('star'), endpoints: positive, radix: z.int().min(2).default(64) }),
  /** Folded Clos network; neighbours in endpoint order share a leaf. */
  z.strictObject({ kind: z.literal('fat-tree'), endpoints: positive, ...fatTree }),
  /** NIC r of every node of a group meets on one leaf; leaves of all rails share the layers above [ISCA §5.1, MRFT]. */
  z.strictObject({
    kind: z.literal('multi-rail-fat-tree'),
    endpoints: positive,
    rails: positive.default(8),
    ...fatTree,
  }),
  /**
   * Fat-trees of their own, one per plane [ISCA §5.1, MPFT]. NIC r belongs to plane r mod planes; with `multiPort` each
   * NIC has a port in every plane, the rate divided among them [ISCA figure 4]. `endpoints` counts NICs.
   */
  z.strictObject({
    kind: z.literal('multi-plane-fat-tree'),
    endpoints: positive,
    planes: positive.default(8),
    multiPort: z.boolean().default(false),
    ...fatTree,
  }),
  /** NIC r of every node on rail r's switch, rails never joined: one switch layer, so `radix` nodes at most. */
  z.strictObject({
    kind: z.literal('rail-only'),
    endpoints: positive,
    rails: positive.default(8),
    radix: z.int().min(2).default(64),
  }),
  /** MMS graph of 2q² switches, q a prime power 4w + {-1, 0, 1} [Besta and Hoefler, SC'14 §II-B]. */
  z.strictObject({
    kind: z.literal('slim-fly'),
    q: z.int().min(3),
    /** Default: half the network radix, rounded up (full global bandwidth). */
    endpointsPerSwitch: positive.optional(),
    radix: z.int().min(2).default(64),
  }),
  /** Groups of `a` switches in full mesh, `h` global and `p` endpoint ports each [Kim et al., ISCA'08]. */
  z.strictObject({
    kind: z.literal('dragonfly'),
    p: positive,
    a: positive,
    h: positive,
    /** Default: a·h + 1, one cable between any two groups. */
    groups: z.int().min(2).optional(),
    /** Allow other than a = 2p = 2h, where local, global or endpoint cables are a bottleneck under even load. */
    unbalanced: z.boolean().default(false),
    radix: z.int().min(2).default(64),
  }),
  /** Rings in every dimension; the foil. */
  z.strictObject({
    kind: z.literal('torus'),
    dimensions: z.array(z.int().min(2)).min(1),
    endpointsPerSwitch: positive.default(1),
    radix: z.int().min(2).default(64),
  }),
  /** Switches and cables one by one. */
  z.strictObject({
    kind: z.literal('graph'),
    switches: positive,
    /** Pairs of switches. */
    cables: z.array(z.tuple([z.int().nonnegative(), z.int().nonnegative()])),
    /** The switch of each endpoint. */
    endpoints: z.array(z.int().nonnegative()).min(1),
    radix: z.int().min(2).default(64),
  }),
]);
export type Topology = z.infer<typeof topologySchema>;
export type TopologyKind = Topology['kind'];

/** How many parts of the fabric are not joined by switches. */
export function planesOf(topology: Topology): number {
  if (topology.kind === 'multi-plane-fat-tree') return topology.planes;
  return topology.kind === 'rail-only' ? topology.rails : 1;
}

/** A node as in the H800 cluster [ISCA §4.1, §4.3]. Rates are one way. */
const node = z.strictObject({
  gpus: positive.default(8),
  nics: positive.default(8),
  /** NVLink of one GPU, nominal: 200 GB/s [ISCA §4.1]. */
  nvlinkGBps: gigabits.default(200),
  /** Share of NVLink's rate that data gets: 160 of 200 GB/s [ISCA §4.3]. */
  nvlinkEfficiency: z.number().positive().max(1).default(0.8),
  /** PCIe 5.0 ×16 between GPU and NIC: 64 GB/s less encoding [PCI-SIG, 32 GT/s · 16 · 128/130]. */
  pcieGBps: gigabits.default(63),
  /** A NIC for the storage network, on a fat-tree of its own [ISCA §5.1]. */
  storageNic: z.boolean().default(false),
});
export type NodeSpec = z.infer<typeof node>;

/**
 * What a 64-byte message meets on its way [ISCA table 5]. Switch latencies: Quantum-2 port to port about 330 ns with its
 * forward error correction (vendors' descriptions); RoCE switches of that generation, and what a GPU, PCIe and NIC take on
 * each side, follow from the same-leaf row of the table. Cables: 4.5 ns/m [NVIDIA MCP4Y10 specification].
 */
const latency = z.strictObject({
  /** GPU, PCIe and NIC, on each side. */
  hostNs: nanoseconds,
  switchNs: nanoseconds,
  /** GPU to GPU over NVLink, all in all: 3.33 µs [ISCA table 5]. */
  nvlinkNs: nanoseconds.default(3330),
  cableNsPerMetre: nanoseconds.default(4.5),
  /** Endpoint cables stay in the rack; assumed. */
  endpointMetres: z.number().nonnegative().default(2),
  /** Between switches; assumed, rows of racks. */
  fabricMetres: z.number().nonnegative().default(20),
});
export type LatencySpec = z.infer<typeof latency>;

export const FABRICS = {
  infiniband: latency.parse({ hostNs: 1220, switchNs: 350 }),
  roce: latency.parse({ hostNs: 1340, switchNs: 900 }),
  /** Nothing but the rates counts. */
  ideal: latency.parse({ hostNs: 0, switchNs: 0, nvlinkNs: 0, cableNsPerMetre: 0 }),
} as const;

export const networkSchema = z.strictObject({
  topology: topologySchema,
  /** Without it, flows begin and end at the NICs. */
  node: node.optional(),
  /** Of a NIC, all its ports together. */
  endpointGbps: gigabits.default(400),
  fabricGbps: gigabits.default(400),
  /** Share of a cable's rate that payload gets: a number, or what headers of full packets leave; 1 counts the wire. */
  payloadShare: z.union([z.enum(['infiniband', 'roce']), z.number().positive().max(1)]).default(1),
  latency: z.union([z.enum(['infiniband', 'roce', 'ideal']), latency]).default('infiniband'),
});
export type NetworkSpec = z.infer<typeof networkSchema>;
/** As written in a file: defaults left out. */
export type NetworkInput = z.input<typeof networkSchema>;

/**
 * @param json a network description
 * @param origin its name, for messages
 * @throws UserError naming the field
 */
export function parseNetwork(json: unknown, origin: string): NetworkSpec {
  const parsed = networkSchema.safeParse(json);
  if (!parsed.success) throw new UserError(`${origin}: ${describeIssues(parsed.error)}`);
  return parsed.data;
}

/**
 * Payload of full packets, 4,096 bytes, over what they take of the wire. InfiniBand: local route header 8, base transport header
 * 12, checks 4 + 2 [InfiniBand Architecture Specification, volume 1, §5.2]. RoCE v2: preamble 8, gap 12, Ethernet 14 + 4
 * [IEEE 802.3], IPv4 20, UDP 8, base transport header 12, check 4 [annex A17].
 */
const PAYLOAD_SHARES = { infiniband: 4096 / (4096 + 26), roce: 4096 / (4096 + 82) } as const;

/** The payload share that a description names or gives. */
export const payloadShareOf = ({ payloadShare: given }: NetworkSpec): number =>
  typeof given === 'string' ? PAYLOAD_SHARES[given] : given;

/** The latencies that a description names or spells out. */
export const latencyOf = ({ latency: given }: NetworkSpec): LatencySpec =>
  typeof given === 'string' ? FABRICS[given] : given;
