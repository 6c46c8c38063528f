import type { Accumulator, Operand, Wire } from '../spec/precision.js';
import type { InferenceOps } from './inference.js';
import type { LatentPages, LatentRows } from './latent-pages.js';
import type { RouterShape } from './router.js';
import type { DType, Tensor } from './tensor.js';

export type { RouterShape };

/**
 * The op contract. Every op writes into tensors that the caller allocated, in full, and never reads results
 * back, so that a device may run behind. Two implementations: `backend/reference` (TypeScript, the
 * documentation of each op) and `backend/native` (C++). One conformance suite calls both.
 *
 * Legend: T tokens, D hidden size, H heads, E routed experts, K experts per token, R = T·K rows after
 * dispatch, V vocabulary, G groups (experts) of a grouped GEMM; M, N, K also name GEMM sizes where stated.
 * `activation` means f32 or bf16 (f64 too in the reference). Ops whose name ends in `Backward` overwrite
 * activation gradients and ADD to parameter gradients (f32).
 */

/** A GEMM operand [M, K] in a storage format, with scales per 1×128 tile along K where the format has them. */
export interface QuantizedTensor {
  readonly operand: Operand;
  /**
   * [M, K]. fp32: f32 · bf16: bf16 · e4m3, e5m2: codes · e5m6: bf16 (every E5M6 value is a BF16 value; with
   * power-of-two scales it is already multiplied by its scale, which is exact).
   */
  readonly codes: Tensor;
  /** f32 [ceil(K/128), M], tile-major, all equal with one scale per tensor; absent where there is nothing to scale. */
  readonly scales: Tensor | undefined;
}

/** A weight [G, N, K] prepared for GEMMs that contract over K (forward) or over N (`transposed`, Dgrad). */
export interface PackedWeight {
  readonly operand: Operand;
  readonly transposed: boolean;
  /** G, N, K of the weight. */
  readonly shape: readonly [number, number, number];
  /** Backend's own layout. */
  readonly data: Tensor;
  /** Backend's own layout. */
  readonly scales: Tensor | undefined;
}

/** Sizes and scalings of MLA [TR §2.1.1]. */
export interface AttentionShape {
  /** H. */
  heads: number;
  /** d_h, non-rotary part of queries and keys. */
  nope: number;
  /** d_h^R, rotary part, shared by all heads for keys. */
  rope: number;
  /** Value head size. */
  v: number;
  /** Softmax scale. */
  scale: number;
}

/** Where the rotary part sits in each row: `heads` slices of `rope` values, `stride` apart, from `offset`. */
export interface RopeLayout {
  heads: number;
  stride: number;
  offset: number;
  rope: number;
  /** Pairs are (x0,x1),(x2,x3)… if true, (x0,x_{d/2}),… if false. */
  interleaved: boolean;
}

export interface AdamWStep {
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Multiplies the gradient first (clipping, averaging over micro-batches). */
  gradientScale: number;
  /** 1 − β1^t and 1 − β2^t. */
  biasCorrection1: number;
  biasCorrection2: number;
}

export interface GemmOptions {
  /** Row bounds of the groups, i32 [G+1]; all rows are one group without. */
  offsets?: Tensor | undefined;
  /**
   * How a GEMM with a narrow operand sums, FP32 by default. `fp22` [TR §3.5.2; ISCA §3.1.1] takes 32 products at a time as
   * `numerics/accumulate.ts` defines it. Every 128 products, or where the scales are per tensor and nothing is promoted
   * at the end only, the register is emptied: its content, scaled, is added to an FP32 sum (`promoteEvery: 128`) or to
   * an FP22 one (`null`). The result is the same bits in every backend.
   */
  accumulator?: Accumulator | undefined;
}

export interface Backend extends InferenceOps {
  readonly name: 'reference' | 'native';

  /** Uninitialised memory of at least `bytes`, aligned for the backend's kernels. */
  allocate(bytes: number): ArrayBuffer;

  // ---- Linear: quantise the activation, pack the weight, multiply --------------------------------------

  /** x [M, K] activation → operand in its format, one scale per 1×128 tile along K or for all of x. `out` has the shapes of `quantizedShapes`. */
  quantize(x: Tensor, out: QuantizedTensor): void;
  /** The inverse: values × scales into an activation [M, K]. */
  dequantize(q: QuantizedTensor, out: Tensor): void;
  /** Element types and sizes of a packed weight in this backend; `weight` is the type of w, f32 by default. */
  packedSizes(
    shape: readonly [number, number, number],
    operand: Operand,
    transposed: boolean,
    weight?: DType,
  ): { data: { dtype: 'f64' | 'f32' | 'bf16'; elements: number }; scales: number };
  /** w f32|bf16 [G, N, K] → packed, narrow formats with one scale per 128×128 block or per matrix. */
  packWeight(w: Tensor, out: PackedWeight): void;
  /**
   * out[m, :] (+)= a[m, :] · w_g for every row m of group g. Contracts K (out [M, N]) or, with a transposed
   * weight, N (out [M, K]). Rows offsets[g]..offsets[g+1] belong to group g; without offsets G = 1.
   * Narrow formats: partial sums of 128 products are scaled and added in FP32 (promotion, N_C = 128 [TR §3.3.2]), or
   * summed as `accumulator` says (`GemmOptions`).
   * All formats combine, except that an fp32 operand multiplies only with an fp32 operand.
   */
  gemm(
    a: QuantizedTensor,
    w: PackedWeight,
    out: Tensor,
    options?: GemmOptions & { accumulate?: boolean },
  ): void;
  /**
   * dw[g] += Σ_m dy[m, :]ᵀ x[m, :], f32 [G, N, K], or = where `overwrite`. dy is an activation [M, N]; x as saved
   * by the forward pass; rows and groups as in `gemm`. Both are brought to `operands` in 128×1 tiles along M, from each
   * group's first row [TR §3.3.2], or with one scale for all of dy and one for all of x.
   */
  gemmWgrad(
    dy: Tensor,
    x: QuantizedTensor,
    dw: Tensor,
    operands: { gradient: Operand; input: Operand },
    options?: GemmOptions & { overwrite?: boolean },
  ): void;

  // ---- Element-wise and row-wise ------------------------------------------------------------------------

  /** out = a + b, same shapes and types; out may be a or b. */
  add(a: Tensor, b: Tensor, out: Tensor): void;
  /** out = x in out's type. */
  cast(x: Tensor, out: Tensor): void;
  fill(x: Tensor, value: number): void;
  /** Columns [T, w] from `column` of x [T, W] → out [T, w]. */
  copyColumnsOut(x: Tensor, column: number, out: Tensor): void;
  /** x [T, w] → columns from `column` of out [T, W]. */
  copyColumnsIn(x: Tensor, out: Tensor, column: number): void;
  /** y = x · rsqrt(mean(x²) + eps) · weight; x, y [T, D], weight f32 [D]; inverseRms f32 [T] is kept for backward. */
  rmsNorm(x: Tensor, weight: Tensor, eps: number, y: Tensor, inverseRms: Tensor): void;
  rmsNormBackward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    inverseRms: Tensor,
    dx: Tensor,
    dweight: Tensor,
  ): void;
  /**
   * Rotates in place. x [T, W]; table f32 [positions, rope/2, 2] of (cos, sin); positions i32 [T].
   * `inverse` turns the other way: the backward pass on dx.
   */
  rope(x: Tensor, table: Tensor, positions: Tensor, layout: RopeLayout, inverse: boolean): void;
  /** gu [R, 2I] = [gate | up] → h [R, I] = silu(gate) · up. */
  swiglu(gu: Tensor, h: Tensor): void;
  swigluBackward(dh: Tensor, gu: Tensor, dgu: Tensor): void;

  // ---- Attention ----------------------------------------------------------------------------------------

  /**
   * Causal multi-head attention on MLA's expanded heads, within segments.
   * q [T, H·(nope+rope)] per head [q_nope | q_rope]; kv [S, H·(nope+v)] per head [k_nope | v]; kRope [S, rope];
   * segments i32 ascending row bounds of keys; o [T, H·v]; logSumExp f32 [H, T] is kept for backward. Without `queries`
   * there is a query for every key. Else `queries` are i32 row bounds of q, and those of a segment are of its last tokens:
   * the keys before them were computed earlier.
   */
  attention(
    q: Tensor,
    kv: Tensor,
    kRope: Tensor,
    segments: Tensor,
    shape: AttentionShape,
    o: Tensor,
    logSumExp: Tensor,
    queries?: Tensor,
  ): void;
  attentionBackward(
    dO: Tensor,
    saved: { q: Tensor; kv: Tensor; kRope: Tensor; o: Tensor; logSumExp: Tensor; segments: Tensor },
    shape: AttentionShape,
    dq: Tensor,
    dkv: Tensor,
    dkRope: Tensor,
  ): void;
  /** Keeps latent [M, d_c] and kRope [M, d_h^R] at `slots` i32 [M]. */
  latentWrite(latent: Tensor, kRope: Tensor, slots: Tensor, pages: LatentPages): void;
  /** The inverse: `slots` i32 [M] → latent [M, d_c], kRope [M, d_h^R]. */
  latentRead(pages: LatentPages, slots: Tensor, latent: Tensor, kRope: Tensor): void;
  /**
   * Attention on the latent cache (weight absorption [V2 §2.1.2]): q [B, H·(d_c + d_h^R)] per head [q_nope·W_UK | q_rope];
   * o [B, H·d_c] = softmax(q·[c; k^R]ᵀ · scale) · c over the tokens that each row sees. A row's result does not depend
   * on the other rows of the call.
   */
  latentAttention(
    q: Tensor,
    pages: LatentPages,
    rows: LatentRows,
    shape: { heads: number; scale: number },
    o: Tensor,
  ): void;

  // ---- Mixture of experts -------------------------------------------------------------------------------

  /**
   * logits f32 [T, E], bias f32 [E] → ids i32 [T, K] (order of descending choice score, lower id first on a tie),
   * weights f32 [T, K] from the unbiased scores, normalised and scaled as `shape` says; load i32 [E] = tokens per expert.
   */
  route(logits: Tensor, bias: Tensor, shape: RouterShape, ids: Tensor, weights: Tensor, load: Tensor): void;
  /**
   * dweights f32 [T, K] → dlogits f32 [T, E], plus the gradient of the complementary sequence-wise balance loss
   * α·Σ_e f_e·P_e per segment of `sequences` i32 [S+1] (f is held constant) [TR §2.1.2 eq. 17–20], averaged over
   * sequences and multiplied by `balanceFactor` = α × loss scale. balanceLoss f32 [1] receives Σ_e f_e·P_e averaged over sequences.
   */
  routeBackward(
    dweights: Tensor,
    saved: { logits: Tensor; ids: Tensor; sequences: Tensor },
    shape: RouterShape,
    balanceFactor: number,
    dlogits: Tensor,
    balanceLoss: Tensor,
  ): void;
  /**
   * Order of dispatch: ids i32 [T, K] → rows sorted by expert, within an expert by token.
   * offsets i32 [E+1]; source i32 [R]: token of each row; slot i32 [T, K]: row of each (token, choice).
   */
  dispatchPlan(ids: Tensor, offsets: Tensor, source: Tensor, slot: Tensor): void;
  /** x [T, D] → out [R, D]: out[r] = x[source[r]]. */
  permute(x: Tensor, source: Tensor, out: Tensor): void;
  /**
   * out = x [R, D] as it arrives in format `wire`: narrow formats with an FP32 scale per 1×128 tile along D, LogFMT with its
   * range [ISCA §3.2]. The tile of a NaN or an infinity arrives as NaN; LogFMT, which has no code for either, makes all
   * of out NaN.
   */
  throughWire(x: Tensor, wire: Wire, out: Tensor): void;
  /** y[t] = Σ_k weights[t,k] · x[slot[t,k]]; x [R, D], y [T, D]; weights f32 [T, K], all 1 where absent. */
  unpermute(x: Tensor, slot: Tensor, weights: Tensor | undefined, y: Tensor): void;
  /** dy [T, D] → dx[slot[t,k]] = weights[t,k]·dy[t] [R, D]; dweights[t,k] = dy[t]·x[slot[t,k]] f32 [T, K]. */
  unpermuteBackward(dy: Tensor, x: Tensor, slot: Tensor, weights: Tensor, dx: Tensor, dweights: Tensor): void;

  // ---- Ends of the network and optimizer ----------------------------------------------------------------

  /** ids i32 [T], table f32 [V, D] → y [T, D]. */
  embedding(ids: Tensor, table: Tensor, y: Tensor): void;
  embeddingBackward(ids: Tensor, dy: Tensor, dtable: Tensor): void;
  /**
   * logits f32 [T, V], targets i32 [T] (negative: ignored, loss 0) → losses f32 [T] = −log p(target) and, where
   * dlogits (activation [T, V]) is given, (softmax − onehot) · gradientScale, zero on ignored rows.
   */
  crossEntropy(
    logits: Tensor,
    targets: Tensor,
    losses: Tensor,
    dlogits: Tensor | undefined,
    gradientScale: number,
  ): void;
  /** index i32 [R] = place of the largest of each row of logits f32 [R, V], the first of several; NaN is less than all. */
  argmax(logits: Tensor, index: Tensor): void;
  /**
   * Softmax before it is normalised: weights f32 [R, V] = exp((logits − peak)/temperature), sums f32 [R, 2] = the row's
   * largest logit `peak` and Σ weights. A sum is no number where a logit is none, or where the peak is infinite.
   */
  softmaxWeights(logits: Tensor, temperature: number, weights: Tensor, sums: Tensor): void;
  /** out f32 [1] = Σ x², in f64 inside and in a fixed order. Not finite if any element is not. */
  sumOfSquares(x: Tensor, out: Tensor): void;
  /** Decoupled weight decay [arXiv 1711.05101]. parameter, gradient f32; moments f32 or bf16 (rounded to nearest even). */
  adamw(parameter: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: AdamWStep): void;
}
