import type { Transformer } from '../model/transformer.js';
import { Random } from '../numerics/random.js';
import type { Recipe } from '../spec/precision.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { Decoder } from './decoder.js';
import { type Sampling, sample } from './old-sampler.js';

export interface GenerateOptions extends Sampling {
  /** Tokens to add at most. */
  maxTokens: number;
  seed: number;
}

export interface Generated {
  /** The continuation without the prompt. */
  text: string;
  /** Ids of the continuation. */
  tokens: number[];
  /** Decoding alone, without the prompt; undefined for fewer than two tokens. */
  tokensPerSecond: number | undefined;
}

/**
 * Continues a prompt until `maxTokens`, the end-of-sequence token, or the model's context is full.
 * @param onText is given the text as it comes, in pieces that never split a character
 */
export function generate(
  model: Transformer,
  tokenizer: Tokenizer,
  recipe: Recipe,
  prompt: readonly number[],
  options: GenerateOptions,
  onText: (piece: string) => void = () => {},
): Generated {
  const room = Math.min(options.maxTokens, model.config.max_position_embeddings - prompt.length);
  const decoder = new Decoder(model, recipe, prompt.length + Math.max(room, 0));
  const random = new Random(options.seed);
  const stream = tokenizer.stream({ skipSpecialTokens: true });
  const tokens: number[] = [];
  let text = '';
  const emit = (piece: string) => {
    text += piece;
    if (piece) onText(piece);
  };
  let logits = decoder.extend(prompt);
  const started = performance.now();
  while (tokens.length < room) {
    const next = sample(logits, options, random);
    if (next === model.config.eos_token_id) break;
    tokens.push(next);
    emit(stream.push(next));
    if (tokens.length < room) logits = decoder.extend([next]);
  }
  emit(stream.end());
  const seconds = (performance.now() - started) / 1000;
  return { text, tokens, tokensPerSecond: tokens.length > 1 ? (tokens.length - 1) / seconds : undefined };
}
