import { WEIGHT_FORMATS, type WeightFormat } from '../../spec/serving.js';
import type { AttentionWeights, BlockRows, FeedForwardWeights } from '../../tensor/blocks.js';
import type { InferenceOps, WeightPiece } from '../../tensor/inference.js';
import type { LatentPages } from '../../tensor/latent-pages.js';
import type { Tensor } from '../../tensor/tensor.js';
import { allocatePiece, describeWeight, fp32Piece } from '../stored.js';
import { type Addon, CACHE_FORMAT_CODES, type Kernels, routerArguments } from './addon.js';

/** Mapped files and stored weights on the addon. */
export function inferenceOps(addon: Addon, kernels: Kernels): InferenceOps {
  return {
    mapFile: (path, position, bytes) => addon.mapFile(path, position, bytes),
    residentBytes: (bytes) => addon.residentBytes(bytes),
    forgetPages: (bytes) => addon.forgetPages(bytes),
    encodeWeight: (format, values, k) => encodeWeight(kernels, format, values, k),
    storeWeight: (format, k, groups) => {
      const described = describeWeight(format, k, groups);
      const pieces = groups.flat();
      const starts = groups.map((_, g) => groups.slice(0, g).reduce((sum, { length }) => sum + length, 0));
      const handle = addon.storeWeight(
        WEIGHT_FORMATS.indexOf(format),
        described.n,
        k,
        [...starts, pieces.length],
        pieces.map(({ rows }) => rows),
        pieces.map(({ first }) => first),
        pieces.map(({ codes }) => codes),
        pieces.map(({ scales }) => scales),
      );
      return { ...described, handle };
    },
    project: (x, w, y, { offsets, accumulate = false } = {}) =>
      kernels.project(w.handle, x.data, x.rows, y.data, offsets?.data, accumulate),
    normProject: (parts, norms, eps, w, wanted, normed, y) =>
      kernels.normProject(
        parts.map(({ data }) => data),
        norms.map(({ data }) => data),
        eps,
        w.handle,
        normed.data,
        wanted.data,
        y.data,
      ),
    readRows: (w, ids, out) => kernels.readRows(w.handle, ids.data, out.data),
    attentionBlock: (x, w, pages, at) => attentionBlock(kernels, x, w, pages, at),
    feedForwardBlock: (x, w) => feedForwardBlock(kernels, x, w),
  };
}

function encodeWeight(kernels: Kernels, format: WeightFormat, values: Float32Array, k: number): WeightPiece {
  if (format === 'fp32') return fp32Piece(values, k);
  const { piece, codes, scales } = allocatePiece(format, values.length / k, k);
  const data = format === 'bf16' ? new Uint16Array(codes.buffer) : codes;
  kernels.encodeWeight(WEIGHT_FORMATS.indexOf(format), values, k, data, scales);
  return piece;
}

function attentionBlock(
  kernels: Kernels,
  x: Tensor,
  w: AttentionWeights,
  pages: LatentPages,
  { positions, slots, rows }: BlockRows,
): void {
  kernels.attentionBlock(
    x.data,
    positions.data,
    slots.data,
    pages.data.data,
    CACHE_FORMAT_CODES[pages.format],
    rows.bounds.data,
    rows.lengths.data,
    rows.pages.data,
    rows.pageBounds.data,
    w.inputNorm.data,
    w.down.handle,
    w.query?.norm.data,
    w.query?.up.handle,
    w.latentNorm.data,
    w.keyUp.handle,
    w.valueUp.handle,
    w.output.handle,
    w.ropeTable.data,
    [w.heads, w.nope, w.rope, w.v, w.latent],
    w.eps,
    w.scale,
    w.interleaved,
  );
}

function feedForwardBlock(kernels: Kernels, x: Tensor, w: FeedForwardWeights): void {
  const { norm, eps, dense, experts } = w;
  if (dense) kernels.mlpBlock(x.data, norm.data, dense.gateUp.handle, dense.down.handle, eps);
  if (!experts) return;
  const { gate, bias, routed, shared, shape } = experts;
  kernels.moeBlock(
    x.data,
    norm.data,
    gate.handle,
    bias.data,
    routed.gateUp.handle,
    routed.down.handle,
    shared?.gateUp.handle,
    shared?.down.handle,
    eps,
    ...routerArguments(shape),
  );
}
