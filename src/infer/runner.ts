import type { ModelConfig } from '../spec/model.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import type { Tensor } from '../tensor/tensor.js';

/**
 * The seam between what decides (scheduler, cache manager, sampler: plain TypeScript over token ids and page numbers)
 * and what computes (weights, kernels, cache memory).
 *
 * Legend: S sequences of a step, M new tokens of all sequences together, V vocabulary, D hidden size.
 */
export interface StepBatch {
  /** i32 [M]: new tokens, sequence after sequence. */
  tokens: Int32Array;
  /** i32 [S+1]: rows of each sequence in `tokens`. */
  bounds: Int32Array;
  /** Tokens of each sequence that the cache holds already; the first new token has this position. */
  lengths: readonly number[];
  /** Pages of each sequence, in order; they hold `pageTokens` tokens each and suffice for old and new tokens. */
  pages: readonly Int32Array[];
  /** Ascending rows of `tokens` whose logits are wanted. */
  wanted: Int32Array;
}

/** What a step gives; valid until the next call. */
export interface StepResult {
  /** f32 [wanted, V]. */
  logits: Tensor;
  /** [M, D]: hidden states after the final norm, what an MTP module continues from [TR §2.2]. */
  hidden: Tensor;
}

/** A model in memory with its latent cache. Calls are synchronous. */
export interface ModelRunner {
  readonly config: ModelConfig;
  readonly weightFormat: WeightFormat;
  /** Bytes of all weights as held. */
  readonly weightBytes: number;
  /** Of them, those that are in memory now; mapped files are read as they are needed and dropped where memory is short. */
  residentWeightBytes(): number;
  readonly cache: {
    readonly format: CacheFormat;
    /** Tokens of a page. */
    readonly pageTokens: number;
    readonly pages: number;
    /** Over all layers, those of MTP modules in use included. */
    readonly bytesPerToken: number;
  };
  /** MTP modules that `draft` can use: 0 or 1. */
  readonly draftDepth: number;
  /** Appends the new tokens of every sequence to its pages and computes. Rows may follow cached ones (chunked prefill, verification). */
  step(batch: StepBatch): StepResult;
  /**
   * One MTP module: for each row the hidden state of the main model at its position and the token after it (`batch.tokens`
   * holds those: the token one ahead of the position). Appends to the module's own layer in the same pages, at the same
   * positions. The logits are of the token two ahead.
   * @param hidden [M, D]
   */
  draft(batch: StepBatch, hidden: Tensor): StepResult;
  /** Copies the cache contents of a page, all layers. */
  copyPage(from: number, to: number): void;
  close(): void;
}
