import { selectBackend } from '../backend/select.js';
import { UserError } from '../errors.js';
import { readCheckpoint } from '../model/checkpoint.js';
import { loadModel } from '../model/load.js';
import type { ModelConfig } from '../spec/model.js';
import { RECIPES } from '../spec/precision.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { TransformerRunner } from './model-runner.js';
import type { ModelRunner } from './runner.js';

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
  const { cacheTokens, speculative = true, backend = 'auto', threads } = options;
  checkCacheTokens(cacheTokens);
  const { config, weightFormat: stored } = describe(folder);
  if (config.attention_kind !== 'mla') {
    throw new UserError(
      `${folder}/config.json: attention_kind is ${config.attention_kind}; inference serves mla only, whose latents it keeps`,
    );
  }
  const weightFormat = options.weights ?? stored;
  if (weightFormat !== 'fp32' && weightFormat !== 'bf16') {
    throw new UserError(`weights are ${weightFormat}: give fp32 or bf16`);
  }
  const recipe = RECIPES[weightFormat];
  const model = loadModel(folder, selectBackend(backend, threads), speculative ? undefined : 0);
  const tokens = cacheTokens ?? model.config.max_position_embeddings;
  return new TransformerRunner(model, {
    recipe,
    weightFormat,
    cacheFormat: options.cache ?? 'bf16',
    pages: Math.ceil(tokens / PAGE_TOKENS),
  });
}

function checkCacheTokens(tokens: number | undefined): void {
  if (tokens === undefined || (Number.isInteger(tokens) && tokens >= 1)) return;
  throw new UserError(`cacheTokens is ${tokens}: give a whole number of at least 1`);
}

function describe(folder: string): { config: ModelConfig; weightFormat: WeightFormat } {
  const checkpoint = readCheckpoint(folder);
  checkpoint.close();
  const embedding = checkpoint.stored.get('model.embed_tokens.weight');
  return { config: checkpoint.config, weightFormat: embedding?.dtype === 'F32' ? 'fp32' : 'bf16' };
}
