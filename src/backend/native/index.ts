import type { Backend, PackedWeight, QuantizedTensor } from '../../tensor/backend.js';
import type { LatentPages } from '../../tensor/latent-pages.js';
import { fp22Of, isNarrow } from '../../tensor/quantized.js';
import {
  type Addon,
  CACHE_FORMAT_CODES,
  FORMAT_CODES,
  type InstructionSet,
  type Kernels,
  loadAddon,
  routerArguments,
  scaleMode,
} from './addon.js';
import { inferenceOps } from './inference.js';
import { throughWire } from './wire.js';

/** The native backend, or undefined where the addon is not built. @param isa a lower level than the best, for tests */
export function loadNativeBackend(isa?: InstructionSet): Backend | undefined {
  const addon = loadAddon();
  return addon && nativeBackend(addon, undefined, isa);
}

/** The op contract on the addon's kernels. Sets the size of its thread pool where `threads` is given. */
export function nativeBackend(addon: Addon, threads?: number, isa?: InstructionSet): Backend {
  if (threads !== undefined) addon.setThreads(threads);
  const kernels = isa ? addon.forIsa(isa) : addon;
  return {
    name: 'native',
    allocate: (bytes) => addon.alloc(bytes),
    ...linearOps(kernels),
    ...rowOps(kernels),
    ...attentionOps(kernels),
    ...expertOps(kernels),
    ...endOps(kernels),
    ...inferenceOps(addon, kernels),
  };
}

type Part<K extends keyof Backend> = Pick<Backend, K>;

const formatOf = ({ operand }: QuantizedTensor | PackedWeight): number => FORMAT_CODES[operand.format];
const scaleOf = ({ operand }: QuantizedTensor | PackedWeight): number => scaleMode(operand);

/** Tiles of 128 along the contraction; weight scales are padded to panels of 16 columns (native/gemm_ops.cc). */
const tiles = (depth: number): number => Math.ceil(depth / 128);
const padded = (columns: number): number => Math.ceil(columns / 16) * 16;

function linearOps(
  kernels: Kernels,
): Part<'quantize' | 'dequantize' | 'packedSizes' | 'packWeight' | 'gemm' | 'gemmWgrad'> {
  return {
    quantize: (x, out) =>
      kernels.quantize(x.data, x.rows, x.cols, formatOf(out), scaleOf(out), out.codes.data, out.scales?.data),
    dequantize: (q, out) =>
      kernels.dequantize(q.codes.data, formatOf(q), q.scales?.data, out.data, out.rows, out.cols),
    packedSizes: ([g, n, k], operand, transposed) => {
      const [columns, depth] = transposed ? [k, n] : [n, k];
      const dtype = operand.format === 'fp32' ? 'f32' : 'bf16';
      const bytes = g * kernels.packedBytes(columns, depth, FORMAT_CODES[operand.format]);
      return {
        data: { dtype, elements: bytes / (dtype === 'f32' ? 4 : 2) },
        scales: isNarrow(operand) ? g * tiles(depth) * padded(columns) : 0,
      };
    },
    packWeight: (w, out) =>
      kernels.packWeight(
        w.data,
        ...out.shape,
        out.transposed,
        formatOf(out),
        scaleOf(out),
        out.data.data,
        out.scales?.data,
      ),
    ...products(kernels),
  };
}

function products(kernels: Kernels): Part<'gemm' | 'gemmWgrad'> {
  return {
    gemm: (a, w, out, { offsets, accumulator, accumulate = false } = {}) => {
      const fp22 = fp22Of(accumulator, a.operand, w.operand);
      const left = [a.codes.data, formatOf(a), a.scales?.data, a.codes.rows, a.codes.cols] as const;
      const weight = [w.data.data, formatOf(w), w.scales?.data, out.cols] as const;
      const rest = [out.data, accumulate, offsets?.data] as const;
      if (fp22) kernels.hopperGemm(...left, ...weight, ...rest, fp22.whole, fp22.promote);
      else kernels.gemm(...left, ...weight, ...rest);
    },
    gemmWgrad: (dy, x, dw, { gradient, input }, { offsets, accumulator, overwrite = false } = {}) => {
      const fp22 = fp22Of(accumulator, gradient, input);
      const stored = [dy.data, x.codes.data, formatOf(x), x.scales?.data] as const;
      const sizes = [dy.rows, dy.cols, x.codes.cols] as const;
      const wanted = [
        FORMAT_CODES[gradient.format],
        scaleMode(gradient),
        FORMAT_CODES[input.format],
        scaleMode(input),
      ] as const;
      const rest = [dw.data, offsets?.data, !overwrite] as const;
      if (fp22) kernels.hopperWgrad(...stored, ...sizes, ...wanted, ...rest, fp22.whole, fp22.promote);
      else kernels.gemmWgrad(...stored, ...sizes, ...wanted, ...rest);
    },
  };
}

function rowOps(
  kernels: Kernels,
): Part<
  | 'add'
  | 'cast'
  | 'fill'
  | 'copyColumnsOut'
  | 'copyColumnsIn'
  | 'rmsNorm'
  | 'rmsNormBackward'
  | 'rope'
  | 'swiglu'
  | 'swigluBackward'
> {
  return {
    add: (a, b, out) => kernels.add(a.data, b.data, out.data),
    cast: (x, out) => kernels.cast(x.data, out.data),
    fill: (x, value) => kernels.fill(x.data, value),
    copyColumnsOut: (x, column, out) => kernels.copyColumnsOut(x.data, x.cols, column, out.data, out.cols),
    copyColumnsIn: (x, out, column) => kernels.copyColumnsIn(x.data, x.cols, out.data, out.cols, column),
    rmsNorm: (x, weight, eps, y, inverseRms) =>
      kernels.rmsNorm(x.data, weight.data, eps, y.data, inverseRms.data),
    rmsNormBackward: (dy, x, weight, inverseRms, dx, dweight) =>
      kernels.rmsNormBackward(dy.data, x.data, weight.data, inverseRms.data, dx.data, dweight.data),
    rope: (x, table, positions, { heads, stride, offset, rope, interleaved }, inverse) =>
      kernels.rope(
        x.data,
        x.cols,
        table.data,
        positions.data,
        heads,
        stride,
        offset,
        rope,
        interleaved,
        inverse,
      ),
    swiglu: (gu, h) => kernels.swiglu(gu.data, h.data, h.cols),
    swigluBackward: (dh, gu, dgu) => kernels.swigluBackward(dh.data, gu.data, dgu.data, dh.cols),
  };
}

function attentionOps(
  kernels: Kernels,
): Part<'attention' | 'attentionBackward' | 'latentWrite' | 'latentRead' | 'latentAttention'> {
  return {
    attention: (q, kv, kRope, segments, { heads, nope, rope, v, scale }, o, logSumExp, queries) =>
      kernels.attention(
        q.data,
        kv.data,
        kRope.data,
        segments.data,
        queries?.data,
        heads,
        nope,
        rope,
        v,
        scale,
        o.data,
        logSumExp.data,
      ),
    attentionBackward: (dO, saved, { heads, nope, rope, v, scale }, dq, dkv, dkRope) =>
      kernels.attentionBackward(
        dO.data,
        saved.q.data,
        saved.kv.data,
        saved.kRope.data,
        saved.o.data,
        saved.logSumExp.data,
        saved.segments.data,
        heads,
        nope,
        rope,
        v,
        scale,
        dq.data,
        dkv.data,
        dkRope.data,
      ),
    latentWrite: (latent, kRope, slots, pages) =>
      kernels.latentWrite(latent.data, kRope.data, slots.data, ...pageArguments(pages)),
    latentRead: (pages, slots, latent, kRope) =>
      kernels.latentRead(...pageArguments(pages), slots.data, latent.data, kRope.data),
    latentAttention: (q, pages, { bounds, lengths, pages: table, pageBounds }, { heads, scale }, o) =>
      kernels.latentAttention(
        q.data,
        ...pageArguments(pages),
        bounds.data,
        lengths.data,
        table.data,
        pageBounds.data,
        heads,
        scale,
        o.data,
      ),
  };
}

const pageArguments = ({ data, format, latent, rope }: LatentPages) =>
  [data.data, CACHE_FORMAT_CODES[format], latent, rope] as const;

function expertOps(
  kernels: Kernels,
): Part<
  'route' | 'routeBackward' | 'dispatchPlan' | 'permute' | 'throughWire' | 'unpermute' | 'unpermuteBackward'
> {
  return {
    route: (logits, bias, shape, ids, weights, load) =>
      kernels.route(logits.data, bias.data, ids.data, weights.data, load.data, ...routerArguments(shape)),
    routeBackward: (dweights, { logits, ids, sequences }, shape, balanceFactor, dlogits, balanceLoss) =>
      kernels.routeBackward(
        dweights.data,
        logits.data,
        ids.data,
        sequences.data,
        dlogits.data,
        balanceLoss.data,
        balanceFactor,
        ...routerArguments(shape),
      ),
    dispatchPlan: (ids, offsets, source, slot) =>
      kernels.dispatchPlan(ids.data, offsets.data, source.data, slot.data, ids.cols),
    permute: (x, source, out) => kernels.permute(x.data, source.data, out.data, x.cols),
    throughWire: throughWire(kernels),
    unpermute: (x, slot, weights, y) => kernels.unpermute(x.data, slot.data, weights?.data, y.data, x.cols),
    unpermuteBackward: (dy, x, slot, weights, dx, dweights) =>
      kernels.unpermuteBackward(dy.data, x.data, slot.data, weights.data, dx.data, dweights.data, dy.cols),
  };
}

function endOps(
  kernels: Kernels,
): Part<
  'embedding' | 'embeddingBackward' | 'crossEntropy' | 'argmax' | 'softmaxWeights' | 'sumOfSquares' | 'adamw'
> {
  return {
    embedding: (ids, table, y) => kernels.embedding(ids.data, table.data, y.data, table.cols),
    embeddingBackward: (ids, dy, dtable) =>
      kernels.embeddingBackward(ids.data, dy.data, dtable.data, dy.cols),
    crossEntropy: (logits, targets, losses, dlogits, gradientScale) =>
      kernels.crossEntropy(logits.data, targets.data, losses.data, dlogits?.data, logits.cols, gradientScale),
    argmax: (logits, index) => kernels.argmax(logits.data, index.data),
    softmaxWeights: (logits, temperature, weights, sums) =>
      kernels.softmaxWeights(logits.data, temperature, weights.data, sums.data),
    sumOfSquares: (x, out) => kernels.sumOfSquares(x.data, out.data),
    adamw: (parameter, gradient, m, v, step) =>
      kernels.adamw(
        parameter.data,
        gradient.data,
        m.data,
        v.data,
        step.learningRate,
        step.beta1,
        step.beta2,
        step.epsilon,
        step.weightDecay,
        step.gradientScale,
        step.biasCorrection1,
        step.biasCorrection2,
      ),
  };
}
