/** Table 5 and figures 5 to 8 of the paper's network section, from the flow engine. */
import { simulate } from '../cluster/simulate.js';
import { binaryBytes, si } from '../report/units.js';
import type { NetworkInput } from '../spec/network.js';
import { parseScenario, type RoutingSpec, type ScenarioInput, type TrafficInput } from '../spec/scenario.js';
import { figure, type Reproduction } from './row.js';

const run = (
  name: string,
  network: NetworkInput,
  workload: TrafficInput,
  more: Partial<ScenarioInput> = {},
) => simulate(parseScenario({ name, network, workload: [workload], ...more }, name));

/** A curve of a figure, for plotting: x, and y with its spread. */
export interface Series {
  name: string;
  points: { x: number; y: number; low: number; high: number }[];
}

export interface PlottedReproduction extends Reproduction {
  xLabel: string;
  yLabel: string;
  /** How numbers on the axes are written, where they are logarithms. */
  xText?: (value: number) => string;
  yText?: (value: number) => string;
  series: Series[];
}

const H800 = { gpus: 8, nics: 8 } as const;
const tree = (kind: 'multi-plane-fat-tree' | 'multi-rail-fat-tree', endpoints: number): NetworkInput => ({
  topology: { kind, endpoints },
  node: H800,
});

/** [ISCA table 5] microseconds for 64 bytes. */
export function table5(): Reproduction {
  const micros = (latency: 'infiniband' | 'roce', to: number) => {
    const network: NetworkInput = { ...tree('multi-plane-fat-tree', 1024), latency };
    const flows = [{ from: 0, to, bytes: 64 }];
    return 1e6 * run('Table 5', network, { kind: 'flows', flows }).seconds;
  };
  // GPU 8 is on the next node, on the same leaf; GPU 512 on node 64, on another leaf of the same plane; GPU 1 beside GPU 0.
  return {
    source: 'ISCA table 5',
    title: 'Latency of 64 bytes, end to end',
    figures: [
      figure('RoCE, same leaf', 'µs', 3.6, micros('roce', 8)),
      figure('RoCE, cross leaf', 'µs', 5.6, micros('roce', 512)),
      figure('InfiniBand, same leaf', 'µs', 2.8, micros('infiniband', 8)),
      figure('InfiniBand, cross leaf', 'µs', 3.7, micros('infiniband', 512)),
      figure('NVLink', 'µs', 3.33, micros('infiniband', 1)),
    ],
    notes: [
      'what GPU, PCIe and NIC take on each side is set from the same-leaf rows, NVLink from its own; cross-leaf rows follow from switch and cable latencies',
    ],
  };
}

const GIB = 2 ** 30;
const sizeText = (log2: number): string => binaryBytes(2 ** log2);
const doubling = (from: number, to: number, factor = 2): number[] => {
  const sizes: number[] = [];
  for (let size = from; size <= to; size *= factor) sizes.push(size);
  return sizes;
};

/** [ISCA figure 5] NCCL all-to-all of 32, 64 and 128 GPUs: MPFT equals MRFT. Bus bandwidth, GB/s. */
export function figure5(): PlottedReproduction {
  const sizes = doubling(GIB / 8, 16 * GIB);
  const bandwidth = (kind: 'multi-plane-fat-tree' | 'multi-rail-fat-tree', gpus: number, bytes: number) =>
    run('figure 5', tree(kind, gpus), { kind: 'all-to-all', bytes }).pieces[0]!.busBytesPerSecond / 1e9;
  const series = [32, 64, 128].flatMap((gpus) =>
    (['multi-plane-fat-tree', 'multi-rail-fat-tree'] as const).map((kind) => ({
      name: `${kind === 'multi-plane-fat-tree' ? 'MPFT' : 'MRFT'}, ${gpus} GPUs`,
      points: sizes.map((bytes) => point(Math.log2(bytes), bandwidth(kind, gpus, bytes))),
    })),
  );
  const figures = [32, 64, 128].map((gpus, i) =>
    figure(`MPFT over MRFT, ${gpus} GPUs, worst size`, '', 1, worstRatio(series[2 * i]!, series[2 * i + 1]!)),
  );
  return {
    source: 'ISCA figure 5',
    title: 'All-to-all of 128 MiB to 16 GiB on MPFT and MRFT',
    xLabel: 'size',
    xText: sizeText,
    yLabel: 'bus bandwidth, GB/s',
    series,
    figures,
    notes: ['the paper plots curves that coincide; the ratio is compared with 1'],
  };
}

/** [ISCA figure 6] latency of all-to-all over 16 GPUs, 64 B to 16 GiB: the two networks within ±1.5 %. */
export function figure6(): PlottedReproduction {
  const sizes = doubling(64, 16 * GIB, 4);
  const series = (['multi-plane-fat-tree', 'multi-rail-fat-tree'] as const).map((kind) => ({
    name: kind === 'multi-plane-fat-tree' ? 'MPFT' : 'MRFT',
    points: sizes.map((bytes) => {
      const { seconds } = run('figure 6', tree(kind, 16), { kind: 'all-to-all', bytes });
      return point(Math.log2(bytes), Math.log10(1e6 * seconds));
    }),
  }));
  const times = series.map(({ name, points }) => ({
    name,
    points: points.map(({ x, y }) => point(x, 10 ** y)),
  }));
  return {
    source: 'ISCA figure 6',
    title: 'All-to-all latency of 16 GPUs on MPFT and MRFT',
    xLabel: 'size',
    xText: sizeText,
    yLabel: 'time',
    yText: (log10) => si(10 ** log10 / 1e6, 's'),
    series,
    figures: [figure('MPFT over MRFT, worst size', '', 1, worstRatio(times[0]!, times[1]!))],
    notes: ['the paper states ±1.5 %'],
  };
}

const point = (x: number, y: number) => ({ x, y, low: y, high: y });

/** The ratio of two curves that is farthest from 1. */
function worstRatio(a: Series, b: Series): number {
  const ratios = a.points.map(({ y }, i) => y / b.points[i]!.y);
  return ratios.reduce((worst, ratio) => (Math.abs(ratio - 1) > Math.abs(worst - 1) ? ratio : worst), 1);
}

/** Bandwidth by DeepEP's own count, GB/s [DeepEP README, normal kernels, H800 and 400 Gb/s]; 128 is only in the figure. */
const DEEPEP: readonly { gpus: number; dispatch: number | null; combine: number | null }[] = [
  { gpus: 16, dispatch: 43, combine: 43 },
  { gpus: 32, dispatch: 58, combine: 57 },
  { gpus: 64, dispatch: 51, combine: 50 },
  { gpus: 128, dispatch: null, combine: null },
];

/**
 * What DeepEP gets out of NVLink's 200 GB/s, from its figures within one node, 153 and 158 GB/s [DeepEP README, normal kernels,
 * EP 8]. Its test counts all tokens that a GPU ends up with, and one in eight was there before.
 */
const DEEPEP_NVLINK_GBPS = { 'ep-dispatch': (153 * 7) / 8, 'ep-combine': (158 * 7) / 8 } as const;

/** [ISCA figure 7] DeepEP's dispatch and combine on MPFT. @param tokens per GPU; the figure has 4,096 */
export function figure7(tokens = 4096): PlottedReproduction {
  const bandwidth = (gpus: number, kind: 'ep-dispatch' | 'ep-combine') => {
    const node = { ...H800, nvlinkEfficiency: DEEPEP_NVLINK_GBPS[kind] / 200 };
    const network = { ...tree('multi-plane-fat-tree', gpus), node, payloadShare: 0.9 };
    const { pieces } = run('figure 7', network, { kind, tokens, nodeLimit: 4 });
    return pieces[0]!.algorithmBytesPerSecond / 1e9;
  };
  const rows = DEEPEP.map((row) => ({
    ...row,
    ours: { dispatch: bandwidth(row.gpus, 'ep-dispatch'), combine: bandwidth(row.gpus, 'ep-combine') },
  }));
  return {
    source: 'ISCA figure 7',
    title: `Expert dispatch and combine on MPFT, ${tokens} tokens a GPU`,
    xLabel: 'GPUs',
    xText: (log2) => String(Math.round(2 ** log2)),
    yLabel: 'GB/s a GPU',
    series: (['dispatch', 'combine'] as const).flatMap((name) => [
      { name, points: rows.map(({ gpus, ours }) => point(Math.log2(gpus), ours[name])) },
      {
        name: `${name}, DeepEP`,
        points: rows.flatMap((row) => (row[name] === null ? [] : [point(Math.log2(row.gpus), row[name])])),
      },
    ]),
    figures: rows.flatMap(({ gpus, ours, dispatch, combine }) => [
      figure(`dispatch, ${gpus} GPUs`, 'GB/s', dispatch, ours.dispatch),
      figure(`combine, ${gpus} GPUs`, 'GB/s', combine, ours.combine),
    ]),
    notes: [
      'bytes as DeepEP counts them: a token once per node that it goes to, its own included; bars of the paper are between 41.6 and 58.0',
      'a NIC gives 45 of its 50 GB/s (assumed: what the bars of 32 and more GPUs leave); NVLink gives what DeepEP gets within one node, and is the limit of two nodes: half of the tokens stay, and each goes on to about three GPUs there',
    ],
  };
}

/** [ISCA figure 8] ring collectives of many groups on a RoCE fabric under three ways of routing. @param seeds of ECMP's hashes */
export function figure8(seeds = 20): PlottedReproduction {
  const network: NetworkInput = { topology: { kind: 'fat-tree', endpoints: 256 }, latency: 'roce' };
  const bandwidth = (
    kind: 'all-gather' | 'reduce-scatter',
    groupSize: number,
    routing: Partial<RoutingSpec>,
  ) =>
    run('figure 8', network, { kind, bytes: GIB / 16, groupSize, groupStride: 256 / groupSize }, { routing })
      .pieces[0]!.busBytesPerSecond / 1e9;
  const cells = (['all-gather', 'reduce-scatter'] as const).flatMap((kind) =>
    [8, 4, 2].map((size) => {
      const ecmp = Array.from({ length: seeds }, (_, seed) => bandwidth(kind, size, { mode: 'ecmp', seed }));
      return {
        kind,
        size,
        ecmp: {
          mean: ecmp.reduce((sum, x) => sum + x, 0) / seeds,
          low: Math.min(...ecmp),
          high: Math.max(...ecmp),
        },
        fixed: bandwidth(kind, size, { mode: 'static' }),
        adaptive: bandwidth(kind, size, { mode: 'spray' }),
      };
    }),
  );
  const of = (kind: string) => cells.filter((cell) => cell.kind === kind);
  return {
    source: 'ISCA figure 8',
    title: 'Ring collectives on RoCE by routing',
    xLabel: 'group size (TP)',
    yLabel: 'bus bandwidth, GB/s',
    series: [
      ['all-gather', 'AG'],
      ['reduce-scatter', 'RS'],
    ].flatMap(([kind, short]) => [
      {
        name: `${short}, ECMP`,
        points: of(kind!).map(({ size, ecmp }) => ({ x: size, y: ecmp.mean, ...ecmp })),
      },
      { name: `${short}, static`, points: of(kind!).map(({ size, fixed }) => point(size, fixed)) },
      { name: `${short}, adaptive`, points: of(kind!).map(({ size, adaptive }) => point(size, adaptive)) },
    ]),
    figures: cells.flatMap(({ kind, size, ecmp, fixed, adaptive }) => [
      figure(
        `${kind} TP${size}, ECMP (${ecmp.low.toFixed(1)}..${ecmp.high.toFixed(1)})`,
        'GB/s',
        null,
        ecmp.mean,
      ),
      figure(`${kind} TP${size}, static`, 'GB/s', null, fixed),
      figure(`${kind} TP${size}, adaptive`, 'GB/s', null, adaptive),
    ]),
    notes: [
      'the paper gives the order alone: ECMP far below adaptive routing, static without conflicts in between or equal',
      `256 NICs, every group across leaves, all groups at once; ECMP over ${seeds} seeds, least to most in brackets; adaptive is packet spraying`,
    ],
  };
}
