import type { Cluster, Known, Link, Machine } from '../spec/machine.js';
import { scaleExchange } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { estimateServing } from './serve.js';
import type { ServePlan } from './serve-plan.js';
import { estimateTraining } from './train.js';
import type { TrainPlan } from './train-plan.js';

/** The paper's recommendations to hardware makers, each as a change of a machine whose effect is estimated. */
export interface Recommendation {
  id: string;
  /** Section of the paper. */
  section: string;
  title: string;
  /** What is changed, in numbers, and why these. */
  assumption: string;
  apply: (machine: Machine) => void;
}

const set = (target: Known, value: number, source: string): void => {
  Object.assign(target, { value, source });
};
const scaleLink = (link: Link | null, factor: number, source: string): void => {
  if (!link) return;
  set(link.bytesPerSecond, link.bytesPerSecond.value * factor, source);
  set(link.effectiveBytesPerSecond, link.effectiveBytesPerSecond.value * factor, source);
};

export const RECOMMENDATIONS: readonly Recommendation[] = [
  {
    id: 'accumulation',
    section: '3.1.2',
    title: 'FP32 accumulation in the matrix unit',
    assumption:
      'no promotion to CUDA cores: 1550 TFLOPS, the best that DeepGEMM reaches on H800, in place of its rate at fine-grained scaling (assumed)',
    apply: ({ kernels: { gemm } }) => gemm.fp8 && set(gemm.fp8.forward.flopsPerSecond, 1550e12, 'assumed'),
  },
  {
    id: 'group-scaling',
    section: '3.1.2',
    title: 'Group scaling inside the matrix unit',
    assumption: 'FP8 at the share of peak that BF16 reaches, 76 %, and half the start-up (assumed)',
    apply: ({ device, kernels: { gemm } }) => {
      if (!gemm.fp8 || !device.peakFlopsPerSecond.fp8) return;
      for (const rate of [gemm.fp8.forward, gemm.fp8.weightGradient]) {
        set(rate.flopsPerSecond, 0.76 * device.peakFlopsPerSecond.fp8.value, 'assumed');
        set(rate.halfDepth, rate.halfDepth.value / 2, 'assumed');
      }
    },
  },
  {
    id: 'compression',
    section: '3.2.2',
    title: 'Compression units at the network: combine in LogFMT-10',
    assumption: 'combine sends 10 of 16 bits, at no cost of units [ISCA §3.2]',
    apply: (m) => scaleCombine(m, 16 / 10),
  },
  {
    id: 'co-processor',
    section: '4.4.2',
    title: 'Communication co-processor',
    assumption: 'all units compute while the co-processor communicates [ISCA §4.4]',
    apply: (m) => Object.assign(m.kernels.communicationUnits, { value: 0, source: 'ISCA §4.4.2' }),
  },
  {
    id: 'multicast',
    section: '4.4.2, 6.5',
    title: 'Multicast and reduction in the network',
    assumption:
      'a token crosses the own NIC once in place of once a node: exchanges of training 3.6 times as fast, bounded by NVLink at 160 GB/s',
    apply: (m) => capExchange(m, 3.62),
  },
  {
    id: 'multi-plane-nic',
    section: '5.1',
    title: 'NIC with several ports and packets out of order',
    assumption: 'two ports of 400 Gb/s used by one connection: twice the network bandwidth (assumed)',
    apply: (m) => {
      scaleLink(m.node.scaleOut, 2, 'assumed');
      scaleExchange(m, 2);
    },
  },
  {
    id: 'low-latency',
    section: '4.5.2, 5.2',
    title: 'Low latency: NIC on the I/O die, direct send from the device',
    assumption: 'network latency 2.8 µs in place of 3.7, an empty exchange in proportion (assumed)',
    apply: (m) => {
      if (m.node.scaleOut) set(m.node.scaleOut.latencySeconds, 2.8e-6, 'assumed');
      const empty = m.kernels.smallExchange?.latencySeconds;
      if (empty) set(empty, empty.value * (2.8 / 3.7), 'assumed');
    },
  },
  {
    id: 'adaptive-routing',
    section: '5.2',
    title: 'Adaptive routing and congestion control',
    assumption: 'transfers reach 95 % of the network in place of 80 % (assumed)',
    apply: (m) => {
      const out = m.node.scaleOut;
      if (out) set(out.effectiveBytesPerSecond, 0.95 * out.bytesPerSecond.value, 'assumed');
    },
  },
  {
    id: 'stacked-memory',
    section: '6.6',
    title: 'DRAM stacked on logic',
    assumption: 'four times the memory bandwidth (assumed)',
    apply: (m) => set(m.device.memoryBytesPerSecond, 4 * m.device.memoryBytesPerSecond.value, 'assumed'),
  },
  {
    id: 'scale-up',
    section: '4.4.2, 2.3.2',
    title: 'One scale-up domain for all experts',
    assumption:
      'exchanges at 900 GB/s a device and 72 % of it in practice, as in GB200 NVL72 [ISCA §2.3.2; DeepEP README V2]',
    apply: (m) => {
      for (const table of [m.kernels.exchange, m.kernels.smallExchange]) {
        for (const point of table?.points ?? []) {
          point.dispatchBytesPerSecond = Math.max(point.dispatchBytesPerSecond, 650e9);
          point.combineBytesPerSecond = Math.max(point.combineBytesPerSecond, 650e9);
        }
      }
    },
  },
];

function scaleCombine(m: Machine, factor: number): void {
  for (const table of [m.kernels.exchange, m.kernels.smallExchange]) {
    for (const point of table?.points ?? []) point.combineBytesPerSecond *= factor;
  }
}

function capExchange(m: Machine, factor: number): void {
  const most = m.node.scaleUp?.effectiveBytesPerSecond.value ?? Number.POSITIVE_INFINITY;
  for (const point of m.kernels.exchange?.points ?? []) {
    point.dispatchBytesPerSecond = Math.max(
      point.dispatchBytesPerSecond,
      Math.min(most, factor * point.dispatchBytesPerSecond),
    );
    point.combineBytesPerSecond = Math.max(
      point.combineBytesPerSecond,
      Math.min(most, factor * point.combineBytesPerSecond),
    );
  }
}

/** The cluster with some recommendations followed; the given one stays as it is. */
export function improved(cluster: Cluster, wanted: readonly Recommendation[]): Cluster {
  const machine = structuredClone(cluster.machine);
  for (const recommendation of wanted) recommendation.apply(machine);
  return { ...cluster, machine };
}

export interface Effect {
  recommendation: Recommendation | 'all';
  /** Shares of the time before, negative where it becomes shorter. */
  stepChange: number;
  tokenChange: number;
}

/** Every recommendation alone, that which saves most first, and all of them together. */
export function whatIf(
  shape: ModelShape,
  cluster: Cluster,
  train: TrainPlan,
  serve: ServePlan,
  wanted: readonly Recommendation[] = RECOMMENDATIONS,
): { alone: Effect[]; together: Effect } {
  const times = (of: Cluster) => ({
    step: estimateTraining(shape, of, train).stepSeconds,
    token: estimateServing(shape, of, serve).timePerOutputTokenSeconds,
  });
  const before = times(cluster);
  const effect = (recommendation: Effect['recommendation'], followed: readonly Recommendation[]): Effect => {
    const after = times(improved(cluster, followed));
    return {
      recommendation,
      stepChange: after.step / before.step - 1,
      tokenChange: after.token / before.token - 1,
    };
  };
  const alone = wanted.map((one) => effect(one, [one]));
  alone.sort((a, b) => a.stepChange + a.tokenChange - (b.stepChange + b.tokenChange));
  return { alone, together: effect('all', wanted) };
}
