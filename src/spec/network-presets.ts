import type { ScenarioInput } from './scenario.js';

/** Clusters and traffic of the paper, by name [ISCA §5]. */
const H800 = { gpus: 8, nics: 8, storageNic: true } as const;
/** What DeepEP leaves of a NIC's 50 GB/s: 45 where its figures are bound by the NIC (EP32 and more in its README). */
const DEEPEP_SHARE = 0.9;
const MIB = 2 ** 20;

export const NETWORK_PRESETS = {
  /** The cluster that trained DeepSeek-V3: 2,048 GPUs, eight planes of two layers; all-to-all of 128 of them. */
  'h800-mpft': {
    name: 'h800-mpft',
    network: { topology: { kind: 'multi-plane-fat-tree', endpoints: 2048, planes: 8 }, node: H800 },
    workload: [{ kind: 'all-to-all', bytes: 1024 * MIB, ranks: 128 }],
  },
  /** What it is compared with: one fat-tree whose leaves are rails. */
  'h800-mrft': {
    name: 'h800-mrft',
    network: { topology: { kind: 'multi-rail-fat-tree', endpoints: 2048, rails: 8 }, node: H800 },
    workload: [{ kind: 'all-to-all', bytes: 1024 * MIB, ranks: 128 }],
  },
  /** The same planes of RoCE switches, flows hashed to cables [ISCA §5.2]. */
  'h800-mpft-roce': {
    name: 'h800-mpft-roce',
    network: {
      topology: { kind: 'multi-plane-fat-tree', endpoints: 2048, planes: 8 },
      node: H800,
      latency: 'roce',
      payloadShare: 'roce',
    },
    routing: { mode: 'ecmp' },
    workload: [{ kind: 'all-to-all', bytes: 1024 * MIB, ranks: 128 }],
  },
  /** Two expert-parallel groups of 64 dispatch while their data-parallel pairs reduce gradients over the same NICs. */
  'ep-dp-128': {
    name: 'ep-dp-128',
    network: { topology: { kind: 'multi-plane-fat-tree', endpoints: 128, planes: 8, radix: 16 }, node: H800 },
    workload: [
      { kind: 'ep-dispatch', nodeLimit: 4, ranks: 64 },
      { kind: 'ep-dispatch', nodeLimit: 4, ranks: 64, first: 64, seed: 1 },
      { kind: 'reduce-scatter', bytes: 64 * MIB, groupSize: 2, groupStride: 64 },
    ],
  },
  /** Dispatch of 4,096 tokens a GPU over 64 GPUs, as DeepEP does it. */
  'deepep-64': {
    name: 'deepep-64',
    network: {
      topology: { kind: 'multi-plane-fat-tree', endpoints: 64, planes: 8 },
      node: H800,
      payloadShare: DEEPEP_SHARE,
    },
    workload: [{ kind: 'ep-dispatch', nodeLimit: 4 }],
  },
  /** All-gather of 64 groups of 8 across the leaves of a RoCE fabric. */
  'roce-tp8': {
    name: 'roce-tp8',
    network: { topology: { kind: 'fat-tree', endpoints: 512 }, latency: 'roce' },
    routing: { mode: 'ecmp' },
    workload: [{ kind: 'all-gather', bytes: 64 * MIB, groupSize: 8, groupStride: 64 }],
  },
  ft2: { name: 'ft2', network: { topology: { kind: 'fat-tree', endpoints: 2048 } } },
  mpft: {
    name: 'mpft',
    network: { topology: { kind: 'multi-plane-fat-tree', endpoints: 16384, planes: 8 } },
  },
  ft3: { name: 'ft3', network: { topology: { kind: 'fat-tree', layers: 3, endpoints: 65536 } } },
  /** The largest Slim Fly of 64-port switches; Table 3 counts one of q = 28, which does not exist. */
  'slim-fly': { name: 'slim-fly', network: { topology: { kind: 'slim-fly', q: 27 } } },
  dragonfly: {
    name: 'dragonfly',
    network: { topology: { kind: 'dragonfly', p: 16, a: 32, h: 16, groups: 511 } },
  },
} as const satisfies Record<string, ScenarioInput>;
export type NetworkPreset = keyof typeof NETWORK_PRESETS;
