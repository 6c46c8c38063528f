import type { Cluster, Known, Link, Machine } from '../spec/machine.js';
import { scaleExchange } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { estimateServing } from './serve.js';
import type { ServePlan } from './serve-plan.js';
import { estimateTraining, goodput } from './train.js';
import type { TrainPlan } from './train-plan.js';

/** The paper's recommendations to hardware makers, each as a change of a machine whose effect is estimated. */
export interface Recommendation {
  id: string;
  /** Section of the paper. */
  section: string;
  title: string;
  /** What is changed, in numbers, and why these. */
  assumption: string;
  apply: (machine: Machine, operation: Operation) => void;
}

/** How a run is kept going; what some recommendations change in place of the machine. */
export interface Operation {
  /** Failures that remain, as a share of those of [arXiv 2407.21783 table 5]. */
  failures: number;
  /** That writing a checkpoint stops the run for, and from a failure to the next step. */
  checkpointSeconds: number;
  restartSeconds: number;
}

/** Assumed: a minute a checkpoint, ten minutes to start again. */
export const OPERATION: Readonly<Operation> = { failures: 1, checkpointSeconds: 60, restartSeconds: 600 };

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
    apply: (m) => raiseExchange(m, 650e9),
  },
  {
    id: 'priorities',
    section: '4.5.2',
    title: 'Priorities of traffic on PCIe and NVLink',
    assumption:
      'caches of prompts that arrive at a decoding device take 0.3 % of its NIC (70 kB a token, 2,000 tokens a second); exchanges get that back',
    apply: (m) => scaleExchange(m, 1.003),
  },
  {
    id: 'cpu-scale-up',
    section: '4.5.2',
    title: 'CPU inside the scale-up domain',
    assumption:
      'checkpoints leave devices at 200 GB/s of NVLink in place of 64 GB/s of PCIe 5.0 ×16 (assumed)',
    apply: (_, operation) => {
      operation.checkpointSeconds *= 64 / 200;
    },
  },
  {
    id: 'checksums',
    section: '6.1',
    title: 'Checksums against silent corruption',
    assumption:
      'silent corruption and errors of on-chip memory, 25 of 419 interruptions [arXiv 2407.21783 table 5], are corrected where they occur',
    apply: (_, operation) => {
      operation.failures -= 25 / 419;
    },
  },
  {
    id: 'host-bandwidth',
    section: '6.2',
    title: 'PCIe and DRAM of the host: 640 GB/s and 1 TB/s a node',
    assumption: 'a checkpoint stops the run for half as long (assumed)',
    apply: (_, operation) => {
      operation.checkpointSeconds /= 2;
    },
  },
  {
    id: 'lossless',
    section: '6.3',
    title: 'Intelligent network: retry on links, fast failover, packet spraying',
    assumption:
      'interruptions by switches, cables, NICs and timeouts of the library, 49 of 419 [arXiv 2407.21783 table 5], pass unnoticed',
    apply: (_, operation) => {
      operation.failures -= 49 / 419;
    },
  },
  {
    id: 'ordering',
    section: '4.4.2, 6.4',
    title: 'Acquire and release of memory regions in hardware',
    assumption:
      'no fence and no message of completion: an empty exchange of two network latencies in place of three',
    apply: ({ kernels: { smallExchange } }) => {
      if (!smallExchange) return;
      set(smallExchange.latencySeconds, smallExchange.latencySeconds.value * (2 / 3), 'assumed');
    },
  },
  {
    id: 'wafer-scale',
    section: '6.6',
    title: 'System on wafer',
    assumption: 'ten times the memory bandwidth, exchanges at 2 TB/s a device (assumed)',
    apply: (m) => {
      set(m.device.memoryBytesPerSecond, 10 * m.device.memoryBytesPerSecond.value, 'assumed');
      raiseExchange(m, 2e12);
    },
  },
];

/** Exchanges at this many bytes a second at least. */
function raiseExchange(m: Machine, least: number): void {
  for (const table of [m.kernels.exchange, m.kernels.smallExchange]) {
    for (const point of table?.points ?? []) {
      point.dispatchBytesPerSecond = Math.max(point.dispatchBytesPerSecond, least);
      point.combineBytesPerSecond = Math.max(point.combineBytesPerSecond, least);
    }
  }
}

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

/** The cluster and its operation with some recommendations followed; the given ones stay as they are. */
export function improved(
  cluster: Cluster,
  wanted: readonly Recommendation[],
): { cluster: Cluster; operation: Operation } {
  const machine = structuredClone(cluster.machine);
  const operation = { ...OPERATION };
  for (const recommendation of wanted) recommendation.apply(machine, operation);
  return { cluster: { ...cluster, machine }, operation };
}

export interface Effect {
  recommendation: Recommendation | 'all';
  /** Shares of the time before, negative where it becomes shorter. */
  stepChange: number;
  tokenChange: number;
  /** Of a whole training run, failures and checkpoints included. */
  runChange: number;
}

/** Every recommendation alone, that which saves most first, and all of them together. */
export function whatIf(
  shape: ModelShape,
  cluster: Cluster,
  train: TrainPlan,
  serve: ServePlan,
  wanted: readonly Recommendation[] = RECOMMENDATIONS,
): { alone: Effect[]; together: Effect } {
  const times = (followed: readonly Recommendation[]) => {
    const { cluster: of, operation: o } = improved(cluster, followed);
    const step = estimateTraining(shape, of, train).stepSeconds;
    const { share } = goodput(of, o.checkpointSeconds, o.restartSeconds, undefined, o.failures);
    return { step, run: step / share, token: estimateServing(shape, of, serve).timePerOutputTokenSeconds };
  };
  const before = times([]);
  const effect = (recommendation: Effect['recommendation'], followed: readonly Recommendation[]): Effect => {
    const after = times(followed);
    return {
      recommendation,
      stepChange: after.step / before.step - 1,
      tokenChange: after.token / before.token - 1,
      runChange: after.run / before.run - 1,
    };
  };
  const alone = wanted.map((one) => effect(one, [one]));
  alone.sort((a, b) => a.runChange + a.tokenChange - (b.runChange + b.tokenChange));
  return { alone, together: effect('all', wanted) };
}
