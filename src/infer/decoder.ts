import { UserError } from '../errors.js';
import type { Transformer } from '../model/transformer.js';
import type { Recipe } from '../spec/precision.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { cacheFormatOf, TransformerRunner } from './model-runner.js';

/** One sequence on a runner of its own. */
export class Decoder {
  /** Tokens in the cache. */
  length = 0;
  private readonly runner: TransformerRunner;
  private readonly pages: Int32Array;

  constructor(
    model: Transformer,
    recipe: Recipe,
    /** Most tokens of prompt and continuation together. */
    readonly capacity: number,
  ) {
    const { attention_kind: kind } = model.config;
    if (kind !== 'mla') {
      throw new UserError(
        `the model has attention_kind ${kind}; text is generated with mla only, train such a model to generate`,
      );
    }
    const pages = Math.ceil(capacity / PAGE_TOKENS);
    const weightFormat = recipe.activations;
    this.runner = new TransformerRunner(model, {
      recipe,
      weightFormat,
      cacheFormat: cacheFormatOf(recipe),
      pages,
    });
    this.pages = Int32Array.from({ length: pages }, (_, i) => i);
  }

  /** Bytes of cache per token over all layers. */
  get bytesPerToken(): number {
    return this.runner.cache.bytesPerToken;
  }

  /** Appends tokens to the sequence; logits of the token after the last, f32 [V] in memory of the caller's own. */
  extend(tokens: readonly number[]): Float32Array {
    if (this.length + tokens.length > this.capacity)
      throw new RangeError(`the cache holds ${this.capacity} tokens`);
    const { logits } = this.runner.step({
      tokens: Int32Array.from(tokens),
      bounds: Int32Array.of(0, tokens.length),
      lengths: [this.length],
      pages: [this.pages],
      wanted: Int32Array.of(tokens.length - 1),
    });
    this.length += tokens.length;
    return Float32Array.from(logits.data as Float32Array);
  }
}
