import { UserError } from '../errors.js';
import type { GemmRate, Known, Machine } from './machine.js';

/**
 * Machines by name. Kernel rates are those of published tables; `test/plan/kernels.test.ts` holds the tables beside what the
 * rates give. None is fitted to a training step.
 */
const known = (value: number, source: string): Known => ({ value, source });
const rate = (flopsPerSecond: number, halfDepth: number, source: string): GemmRate => ({
  flopsPerSecond: known(flopsPerSecond, source),
  halfDepth: known(halfDepth, source),
});

/** DeepGEMM's tables of its first release, February 2025, on H800 (README at commit of 2025-02-26). */
const DEEPGEMM = 'DeepGEMM README 2025-02, tables "normal" and "grouped, contiguous", H800';
/** Weight gradients in FP8 with FP32 output. */
const DEEPGEMM_WGRAD = 'github.com/deepseek-ai/DeepGEMM/pull/95, tables, H800';
/** The kernels before it: DeepGEMM's tables divided by their column of speed-ups over "internal CUTLASS 3.6". */
const CUTLASS = `${DEEPGEMM}, divided by their speed-up over the CUTLASS kernels in use until then`;
const CUTLASS_WGRAD = `${DEEPGEMM_WGRAD}, divided by the 20 % that it gained over CUTLASS`;
const HOPPER_SHEET = 'NVIDIA H100 datasheet, SXM5, dense; the H800 computes the same';
const FLASH3 =
  'FlashAttention-3 on H100, BF16, causal, head 128: github.com/meta-pytorch/tritonbench/pull/1267';
/** Causal, 8192 keys, SM100: 1494 and 971 TFLOPS at 192/128 beside 1418 and 1209 at 128. */
const LATENT_HEADS =
  'assumed as on SM100: github.com/Dao-AILab/flash-attention/pull/2270 beside pull/2280, causal, 8192 keys';
/** Mean of five kernels at 32768 × 4096: 2634 to 2777 GB/s of 3352. */
const TORCHAO =
  'torchao benchmarks/prototype/blockwise_fp8_training/README.md, casts to FP8 and their transposes, H100';
const DEEPEP =
  'DeepEP docs/legacy.md, "normal kernels", H800, 4096 tokens, hidden 7168, top 8 of at most 4 groups';
const DEEPEP_SMALL = 'DeepEP docs/legacy.md, "low-latency kernels", H800, 128 tokens';

/** What DeepSeek's attention of training stood on: [V2 §3.1.3] "an improved version of FlashAttention-2". */
const FLASH2 = (gain: string) =>
  `${FLASH3}, divided by its gain over FlashAttention-2 (${gain}, middle of what arXiv 2407.08608 §4.1 prints)`;
const FLASH2_HEADS =
  'products at 192/128 over those at 192/192: FlashAttention-2 has one size of head, values are filled up';

/** FLOPs of FlashAttention's benchmark (batch 4, 48 heads of 128, causal) divided by the published times. */
const flash3 = (
  products: number,
  times: readonly [keys: number, microseconds: number][],
  latentShare: number,
) => ({
  points: times.map(([keys, us]) => ({
    keys,
    flopsPerSecond: (products * 4 * 4 * 48 * keys ** 2 * 128) / 2 / (us * 1e-6),
  })),
  source: FLASH3,
  latentShare: known(latentShare, LATENT_HEADS),
});

const h800: Machine = {
  name: 'h800',
  device: {
    memoryBytes: known(81559 * 2 ** 20, 'nvidia-smi of an 80 GB Hopper: 81559 MiB'),
    memoryBytesPerSecond: known(3.35e12, 'NVIDIA H800 datasheet, SXM5'),
    peakFlopsPerSecond: {
      bf16: known(989.4e12, HOPPER_SHEET),
      fp8: known(1978.9e12, HOPPER_SHEET),
    },
    units: known(132, 'NVIDIA Hopper architecture: 132 SMs of the SXM5 part'),
    dollarsPerHour: known(2, 'arXiv 2412.19437, §1: 2 dollars an H800 hour'),
  },
  node: {
    devices: 8,
    scaleUp: {
      bytesPerSecond: known(200e9, 'ISCA §4.3: NVLink 200 GB/s one way'),
      effectiveBytesPerSecond: known(160e9, 'ISCA §4.3: about 160 GB/s in practice'),
      latencySeconds: known(3.33e-6, 'ISCA table 5: NVLink, 64 B end to end'),
    },
    scaleOut: {
      bytesPerSecond: known(50e9, 'ISCA §4.3: 400 Gb/s NIC'),
      effectiveBytesPerSecond: known(40e9, 'ISCA §4.3: about 40 GB/s in practice'),
      latencySeconds: known(3.7e-6, 'ISCA table 5: InfiniBand across leaves, 64 B end to end'),
    },
  },
  kernels: {
    gemm: {
      bf16: {
        forward: rate(750e12, 300, 'assumed: 76 % of peak, as cuBLAS reaches on H100 at large sizes'),
        weightGradient: rate(700e12, 300, 'assumed: as forward, with FP32 output'),
      },
      fp8: { forward: rate(1417e12, 718, DEEPGEMM), weightGradient: rate(1211e12, 896, DEEPGEMM_WGRAD) },
      tile: known(128, 'DeepGEMM README 2025-02: blocks of 128 rows and columns'),
    },
    attention: {
      forward: flash3(
        1,
        [
          [1024, 141.63],
          [2048, 368.35],
          [4096, 1236.9],
          [8192, 4817.44],
        ],
        1494 / 1418,
      ),
      backward: flash3(
        2.5,
        [
          [1024, 709.66],
          [2048, 1631.26],
          [4096, 4643.46],
          [8192, 15308.16],
        ],
        971 / 1209,
      ),
    },
    decodeAttentionFlopsPerSecond: known(660e12, 'FlashMLA README, dense decoding, computation bound, H800'),
    memoryShare: known(3000 / 3350, 'FlashMLA README: 3000 GB/s of 3350 where memory binds, H800'),
    elementwiseShare: known(2704 / 3352, TORCHAO),
    launchSeconds: known(3.7e-6, `${DEEPGEMM}: what is left of M = 64 at 3.0 TB/s`),
    communicationUnits: known(20, 'ISCA §4.4; arXiv 2412.19437, §3.2.2'),
    exchange: {
      points: [
        { devices: 8, dispatchBytesPerSecond: 153e9, combineBytesPerSecond: 158e9 },
        { devices: 16, dispatchBytesPerSecond: 43e9, combineBytesPerSecond: 43e9 },
        { devices: 32, dispatchBytesPerSecond: 58e9, combineBytesPerSecond: 57e9 },
        { devices: 64, dispatchBytesPerSecond: 51e9, combineBytesPerSecond: 50e9 },
      ],
      source: DEEPEP,
    },
    smallExchange: {
      points: [
        { devices: 8, dispatchBytesPerSecond: 98e9, combineBytesPerSecond: 127e9 },
        { devices: 16, dispatchBytesPerSecond: 63e9, combineBytesPerSecond: 74e9 },
        { devices: 32, dispatchBytesPerSecond: 48e9, combineBytesPerSecond: 53e9 },
        { devices: 64, dispatchBytesPerSecond: 43e9, combineBytesPerSecond: 46e9 },
        { devices: 128, dispatchBytesPerSecond: 39e9, combineBytesPerSecond: 39e9 },
        { devices: 256, dispatchBytesPerSecond: 39e9, combineBytesPerSecond: 40e9 },
      ],
      source: DEEPEP_SMALL,
      latencySeconds: known(
        10e-6,
        'assumed: three network latencies of table 5, for counts, data and completion',
      ),
    },
  },
};

type AttentionRates = Machine['kernels']['attention']['forward'];

const before = (rates: AttentionRates, gain: number, printed: string): AttentionRates => ({
  points: rates.points.map(({ keys, flopsPerSecond }) => ({ keys, flopsPerSecond: flopsPerSecond / gain })),
  source: FLASH2(printed),
  latentShare: known((192 + 128) / (192 + 192), FLASH2_HEADS),
});

/** The H800 with the kernels that DeepSeek-V3 was trained with, as far as they are published. */
const h800At2024: Machine = {
  ...h800,
  name: 'h800-2024',
  kernels: {
    ...h800.kernels,
    gemm: {
      ...h800.kernels.gemm,
      fp8: { forward: rate(1170e12, 500, CUTLASS), weightGradient: rate(1009e12, 896, CUTLASS_WGRAD) },
    },
    attention: {
      forward: before(h800.kernels.attention.forward, 1.75, '1.5 to 2.0'),
      backward: before(h800.kernels.attention.backward, 1.625, '1.5 to 1.75'),
    },
  },
};

const h100: Machine = {
  ...h800,
  name: 'h100',
  node: {
    ...h800.node,
    scaleUp: {
      bytesPerSecond: known(450e9, 'NVIDIA H100 datasheet: NVLink 900 GB/s both ways'),
      effectiveBytesPerSecond: known(360e9, "assumed: the H800's share, 80 %"),
      latencySeconds: known(3.33e-6, 'ISCA table 5, of the H800'),
    },
  },
};

/** Scales rates that are published for Hopper only. */
const scaled = (from: GemmRate, factor: number, source: string): GemmRate => ({
  flopsPerSecond: known(from.flopsPerSecond.value * factor, source),
  halfDepth: known(from.halfDepth.value, source),
});

const GB200_SHEET = 'NVIDIA GB200 NVL72 datasheet, of one of 72 GPUs, dense';
const LIKE_HOPPER = "assumed: Hopper's share of the peak";
const BF16_GAIN = 2500 / 989.4;
const FP8_GAIN = 5000 / 1978.9;

const gb200: Machine = {
  name: 'gb200-nvl72',
  device: {
    memoryBytes: known(186e9, GB200_SHEET),
    memoryBytesPerSecond: known(8e12, GB200_SHEET),
    peakFlopsPerSecond: { bf16: known(2500e12, GB200_SHEET), fp8: known(5000e12, GB200_SHEET) },
    units: known(148, 'NVIDIA Blackwell architecture: 148 SMs'),
    dollarsPerHour: known(4, 'assumed'),
  },
  node: {
    devices: 72,
    scaleUp: {
      bytesPerSecond: known(900e9, 'ISCA §2.3.2'),
      effectiveBytesPerSecond: known(720e9, 'DeepEP README, V2, SM100, NVLink: 726 GB/s'),
      latencySeconds: known(3.33e-6, 'ISCA table 5, of the H800'),
    },
    scaleOut: {
      bytesPerSecond: known(50e9, 'assumed: one 400 Gb/s NIC a GPU'),
      effectiveBytesPerSecond: known(40e9, 'ISCA §4.3, of the H800'),
      latencySeconds: known(3.7e-6, 'ISCA table 5'),
    },
  },
  kernels: {
    ...h800.kernels,
    gemm: {
      bf16: {
        forward: scaled(h800.kernels.gemm.bf16.forward, BF16_GAIN, LIKE_HOPPER),
        weightGradient: scaled(h800.kernels.gemm.bf16.weightGradient, BF16_GAIN, LIKE_HOPPER),
      },
      fp8: {
        forward: scaled(h800.kernels.gemm.fp8!.forward, FP8_GAIN, LIKE_HOPPER),
        weightGradient: scaled(h800.kernels.gemm.fp8!.weightGradient, FP8_GAIN, LIKE_HOPPER),
      },
      tile: h800.kernels.gemm.tile,
    },
    attention: {
      forward: {
        points: [{ keys: 8192, flopsPerSecond: 1494e12 }],
        latentShare: known(1, 'measured at 192/128'),
        source: 'head 192/128, causal, SM100: github.com/Dao-AILab/flash-attention/pull/2270',
      },
      backward: {
        points: [{ keys: 8192, flopsPerSecond: 971e12 }],
        latentShare: known(1, 'measured at 192/128'),
        source: 'head 192/128, causal, SM100: github.com/Dao-AILab/flash-attention/pull/2270',
      },
    },
    decodeAttentionFlopsPerSecond: known(660e12 * BF16_GAIN, LIKE_HOPPER),
    memoryShare: known(3000 / 3350, LIKE_HOPPER),
    elementwiseShare: known(2704 / 3352, LIKE_HOPPER),
    communicationUnits: known(24, 'DeepEP README, V2, SM100: least number of SMs'),
    exchange: {
      points: [{ devices: 72, dispatchBytesPerSecond: 643e9, combineBytesPerSecond: 675e9 }],
      source: 'DeepEP README, V2, SM100, 24 SMs, 8 GPUs; to 72 by assumption',
    },
    smallExchange: {
      points: [{ devices: 72, dispatchBytesPerSecond: 643e9, combineBytesPerSecond: 675e9 }],
      source: 'DeepEP README, V2, SM100, 24 SMs, 8 GPUs; to 72 by assumption',
      latencySeconds: known(10e-6, 'assumed: three NVLink latencies of table 5'),
    },
  },
};

export const MACHINES: Readonly<Record<string, Machine>> = {
  h800,
  'h800-2024': h800At2024,
  h100,
  'gb200-nvl72': gb200,
};

/** @throws UserError that lists the machines that are known */
export function machineNamed(name: string): Machine {
  if (Object.hasOwn(MACHINES, name)) return MACHINES[name]!;
  throw new UserError(
    `machine "${name}" is not known; take one of ${Object.keys(MACHINES).join(', ')}, or a Machine file (fathom calibrate)`,
  );
}
