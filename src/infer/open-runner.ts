import { selectBackend } from '../backend/select.js';
import { UserError } from '../errors.js';
import { type Checkpoint, readCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../spec/model.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { CheckpointWeights, storedFormat } from './checkpoint-weights.js';
import { StoredRunner } from './model-runner.js';
import type { ModelRunner } from './runner.js';
import { type ExpertSharding, storedModel, type WeightSource } from './stored-model.js';

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
  const { backend: name = 'auto', threads } = options;
  const backend = selectBackend(name, threads);
  const checkpoint = readCheckpoint(folder);
  try {
    return runnerOf(weightSource(checkpoint, backend, options), backend, options);
  } finally {
    checkpoint.close();
  }
}

/** Weights of a checkpoint as the options want them. @throws UserError for a model that inference does not serve */
export function weightSource(
  checkpoint: Checkpoint,
  backend: Backend,
  { weights }: OpenRunnerOptions,
  config: ModelConfig = checkpoint.config,
): CheckpointWeights {
  if (config.attention_kind !== 'mla') {
    throw new UserError(
      `${checkpoint.folder}/config.json: attention_kind is ${config.attention_kind}; inference serves mla only, whose latents it keeps`,
    );
  }
  return new CheckpointWeights(checkpoint, backend, weights ?? storedFormat(checkpoint), config);
}

/** Loads the weights, of experts those that `sharding` leaves to this process. @throws UserError */
export function runnerOf(
  source: WeightSource,
  backend: Backend,
  { cacheTokens, speculative = true, cache: format = 'bf16' }: OpenRunnerOptions,
  sharding?: ExpertSharding,
): StoredRunner {
  checkCacheTokens(cacheTokens);
  const pages = Math.ceil((cacheTokens ?? source.config.max_position_embeddings) / PAGE_TOKENS);
  return new StoredRunner(backend, storedModel(source, speculative, sharding), { format, pages });
}

function checkCacheTokens(tokens: number | undefined): void {
  if (tokens === undefined || (Number.isInteger(tokens) && tokens >= 1)) return;
  throw new UserError(`cacheTokens is ${tokens}: give a whole number of at least 1`);
}
