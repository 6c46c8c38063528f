import { selectBackend } from '../backend/select.js';
import { UserError } from '../errors.js';
import { readCheckpoint } from '../model/checkpoint.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { CheckpointWeights, storedFormat } from './checkpoint-weights.js';
import { StoredRunner } from './model-runner.js';
import type { ModelRunner } from './runner.js';
import { storedModel } from './stored-model.js';

export interface OpenRunnerOptions {
  /** As stored where absent. */
  weights?: WeightFormat;
  /** BF16 where absent. */
  cache?: CacheFormat;
  /** Tokens that the cache holds over all sequences, rounded up to whole pages; one full context where absent. */
  cacheTokens?: number;
  /** Load the model's MTP module for `draft`; true where it has one. */
  speculative?: boolean;
  backend?: 'native' | 'reference' | 'auto';
  threads?: number;
}

/**
 * The model in a Hugging Face folder, ready to serve.
 * @throws UserError when the folder is not a checkpoint of a supported model or an option does not fit it
 */
export function openRunner(folder: string, options: OpenRunnerOptions = {}): ModelRunner {
  const {
    cacheTokens,
    speculative = true,
    cache: format = 'bf16',
    backend: name = 'auto',
    threads,
  } = options;
  checkCacheTokens(cacheTokens);
  const backend = selectBackend(name, threads);
  const checkpoint = readCheckpoint(folder);
  try {
    const { config } = checkpoint;
    if (config.attention_kind !== 'mla') {
      throw new UserError(
        `${folder}/config.json: attention_kind is ${config.attention_kind}; inference serves mla only, whose latents it keeps`,
      );
    }
    const source = new CheckpointWeights(checkpoint, backend, options.weights ?? storedFormat(checkpoint));
    const pages = Math.ceil((cacheTokens ?? config.max_position_embeddings) / PAGE_TOKENS);
    return new StoredRunner(backend, storedModel(source, speculative), { format, pages });
  } finally {
    checkpoint.close();
  }
}

function checkCacheTokens(tokens: number | undefined): void {
  if (tokens === undefined || (Number.isInteger(tokens) && tokens >= 1)) return;
  throw new UserError(`cacheTokens is ${tokens}: give a whole number of at least 1`);
}
