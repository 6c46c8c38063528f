import { selectBackend } from '../backend/select.js';
import { UserError } from '../errors.js';
import { readCheckpoint } from '../model/checkpoint.js';
import { loadModel } from '../model/load.js';
import type { Transformer } from '../model/transformer.js';
import { RECIPES, type Recipe } from '../spec/precision.js';
import { Tokenizer } from '../text/tokenizer.js';

export interface OpenOptions {
  backend?: 'native' | 'reference' | 'auto';
  threads?: number;
  /** How to compute; by default FP32 where weights are stored in FP32, else BF16. */
  precision?: 'fp32' | 'bf16' | 'fp8';
}

/** A model ready to read and write text. */
export interface OpenModel {
  model: Transformer;
  recipe: Recipe;
}

/**
 * The model in a Hugging Face folder. MTP modules stay out: they are for training and drafting.
 * @throws UserError when the folder is not a checkpoint of a supported model
 */
export function openModel(folder: string, { backend, threads, precision }: OpenOptions = {}): OpenModel {
  const recipe = RECIPES[precision ?? storedPrecision(folder)];
  const model = loadModel(folder, selectBackend(backend ?? 'auto', threads), 0);
  return { model, recipe };
}

/** The folder's tokenizer. @throws UserError when it has none, or one whose ids the model does not know */
export function openTokenizer(folder: string, model: Transformer): Tokenizer {
  const tokenizer = Tokenizer.fromFolder(folder);
  checkVocabulary(folder, tokenizer, model.config.vocab_size);
  return tokenizer;
}

/** @throws UserError where a tokenizer has ids that the model of `vocabulary` tokens does not know */
export function checkVocabulary(folder: string, tokenizer: Tokenizer, vocabulary: number): void {
  if (tokenizer.vocabSize <= vocabulary) return;
  throw new UserError(
    `${folder}/tokenizer.json has ids up to ${tokenizer.vocabSize - 1}, but vocab_size in config.json is ${vocabulary}; ` +
      'the tokenizer belongs to another model',
  );
}

function storedPrecision(folder: string): 'fp32' | 'bf16' {
  const checkpoint = readCheckpoint(folder);
  checkpoint.close();
  const embedding = checkpoint.stored.get('model.embed_tokens.weight');
  return embedding?.dtype === 'F32' ? 'fp32' : 'bf16';
}
