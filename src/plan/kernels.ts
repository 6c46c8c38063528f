import type { Machine } from '../spec/machine.js';

/** Seconds of single operations: a roofline whose roof depends on shape and format. */

/** Formats that products are computed in. */
export type ComputeFormat = 'fp32' | 'bf16' | 'fp8';

export const BYTES: Record<ComputeFormat, number> = { fp32: 4, bf16: 2, fp8: 1 };

/** Rows times [k → n] for each of `groups` matrices, all with `rows` rows. */
export interface Gemm {
  rows: number;
  n: number;
  k: number;
  groups?: number;
}

/** Which product of a Linear: forward and input gradient run alike, the weight gradient accumulates in FP32. */
export type GemmKind = 'forward' | 'weightGradient';

/**
 * @param units that compute; fewer than the device has where others communicate
 */
export function gemmSeconds(
  m: Machine,
  { rows, n, k, groups = 1 }: Gemm,
  format: ComputeFormat,
  kind: GemmKind = 'forward',
  units = m.device.units.value,
): number {
  const rate = (m.kernels.gemm[format] ?? m.kernels.gemm.bf16)[kind];
  const flops = 2 * groups * rows * n * k;
  if (flops === 0) return 0;
  const full = (rate.flopsPerSecond.value * k) / (k + rate.halfDepth.value);
  const filled = tileFill(m.kernels.gemm.tile.value, rows, n, groups, units);
  const compute = flops / (full * (units / m.device.units.value) * filled);
  const bytes = groups * (BYTES[format] * (rows * k + n * k) + (kind === 'forward' ? 2 : 4) * rows * n);
  return Math.max(compute, memorySeconds(m, bytes)) + m.kernels.launchSeconds.value;
}

/**
 * Share of the units' work that is wanted: the last wave of tiles may leave units idle, and tiles may stand out over the edge of
 * a matrix. Where there are fewer tiles than units, kernels take narrower ones, down to 16 columns.
 */
function tileFill(tile: number, rows: number, n: number, groups: number, units: number): number {
  const height = rows <= tile / 2 ? tile / 2 : tile;
  const down = groups * Math.ceil(rows / height);
  let width = tile;
  while (width > 16 && down * Math.ceil(n / width) < units) width /= 2;
  const tiles = down * Math.ceil(n / width);
  return (groups * rows * n) / (Math.ceil(tiles / units) * units * height * width);
}

/** Reading and writing so many bytes of the device's memory. */
export const memorySeconds = (m: Machine, bytes: number): number =>
  bytes / (m.device.memoryBytesPerSecond.value * m.kernels.memoryShare.value);

/** The same by kernels between products: casts, norms, activations, permutations, updates. */
export const elementwiseSeconds = (m: Machine, bytes: number): number =>
  bytes / (m.device.memoryBytesPerSecond.value * m.kernels.elementwiseShare.value);

/**
 * Attention of training or prefill over a sequence, causal.
 * @param flops of the forward pass, half of the square counted
 * @param latent whether keys are wider than values, as MLA's are
 */
export function attentionSeconds(
  m: Machine,
  flops: number,
  keys: number,
  pass: 'forward' | 'backward',
  units = m.device.units.value,
  latent = false,
): number {
  const table = m.kernels.attention[pass];
  const full = interpolate(table.points, keys) * (latent ? table.latentShare.value : 1);
  const work = pass === 'forward' ? flops : 2.5 * flops;
  return work / (full * (units / m.device.units.value));
}

/** Rates between two lengths in proportion to the logarithm; beyond the table as at its end. */
function interpolate(points: readonly { keys: number; flopsPerSecond: number }[], keys: number): number {
  let before = points[0]!;
  for (const after of points) {
    if (after.keys >= keys) {
      if (after.keys === before.keys || keys <= before.keys) return before.flopsPerSecond;
      const share = Math.log(keys / before.keys) / Math.log(after.keys / before.keys);
      return before.flopsPerSecond + share * (after.flopsPerSecond - before.flopsPerSecond);
    }
    before = after;
  }
  return before.flopsPerSecond;
}

/**
 * Keys and values of the devices that share a sequence, going round once while attention works on those that are there; the
 * links are those of the node where the ring fits into one.
 * @param bytes of keys and values of one device's tokens
 */
export function ringSeconds(m: Machine, bytes: number, devices: number, perNode: number): number {
  const link = devices <= perNode ? m.node.scaleUp : (m.node.scaleOut ?? m.node.scaleUp);
  if (devices <= 1 || !link) return 0;
  return (devices - 1) * (bytes / link.effectiveBytesPerSecond.value + link.latencySeconds.value);
}

/**
 * Sums of partial results over the devices that share a Linear: reduce-scatter and all-gather within a node, exposed. Two of
 * them a layer, after attention and after the MLP [arXiv 1909.08053 §3].
 */
export function tensorParallelSeconds(m: Machine, bytes: number, devices: number): number {
  const link = m.node.scaleUp;
  if (devices <= 1 || !link) return 0;
  const moved = (2 * bytes * (devices - 1)) / devices;
  return moved / link.effectiveBytesPerSecond.value + 2 * link.latencySeconds.value;
}
