import path from 'node:path';
import { loadAddon } from '../backend/native/addon.js';
import { selectBackend } from '../backend/select.js';
import { UserError } from '../errors.js';
import { readJsonFile } from '../files.js';
import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import type { Backend } from '../tensor/backend.js';
import { Tokenizer } from '../text/tokenizer.js';
import type { Engine, EngineOptions } from './engine.js';
import { type GenerationConfig, readGenerationConfig } from './generation-config.js';
import { Grammars } from './grammar.js';
import { LocalEngine, type LocalEngineParts } from './local-engine.js';
import { checkVocabulary } from './open.js';
import { openRunner } from './open-runner.js';
import type { ModelRunner } from './runner.js';

/** Sequences together and requests waiting where nobody says otherwise. Assumed: what a machine without accelerator serves. */
export const MAX_BATCH = 64;
const MAX_QUEUE = 256;
/** Prompt tokens of a step where nobody decodes: enough rows for the matrix kernels. Assumed. */
export const PREFILL_TOKENS = 512;
/** Memory of the cache where nobody says otherwise, assumed; one full context at least. */
const CACHE_BYTES = 1e9;

/**
 * Opens the model in a Hugging Face folder in this thread. Each step blocks the thread for its duration; a
 * server wants `openEngineInWorker`.
 * @throws UserError when the folder is not a checkpoint of a supported model with its tokenizer, or an option does not fit it
 */
export async function openEngine(folder: string, options: EngineOptions = {}): Promise<Engine> {
  return openLocalEngine(folder, options);
}

/** `openEngine`, as what it is. */
export function openLocalEngine(folder: string, options: EngineOptions): LocalEngine {
  const file = path.join(folder, 'config.json');
  const parts = engineParts(folder, options, parseModelConfig(readJsonFile(file), file));
  return assembleEngine(parts, openRunner(folder, { ...options, ...parts.runnerOptions }));
}

/** All that an engine needs beside its weights. */
export interface EngineParts {
  folder: string;
  config: ModelConfig;
  backend: Backend;
  tokenizer: Tokenizer;
  generation: GenerationConfig;
  sizes: EngineSizes;
  maxQueue: number;
  runnerOptions: { speculative: boolean; cacheTokens: number };
}

/** @throws UserError where the folder lacks something or an option does not fit the model */
export function engineParts(folder: string, options: EngineOptions, config: ModelConfig): EngineParts {
  const sizes = cacheSizes(config, options);
  const tokenizer = Tokenizer.fromFolder(folder);
  checkVocabulary(folder, tokenizer, config.vocab_size);
  const generation = readGenerationConfig(folder, tokenizer);
  const backend = selectBackend(options.backend ?? 'auto', options.threads);
  // What drafts save is reading weights, of which the reference backend does not notice anything.
  const speculative = options.speculative ?? backend.name === 'native';
  const maxQueue = checked('maxQueue', options.maxQueue ?? MAX_QUEUE, 0);
  const runnerOptions = { speculative, cacheTokens: sizes.cacheTokens };
  return { folder, config, backend, tokenizer, generation, sizes, maxQueue, runnerOptions };
}

/** @param steps what an engine over ranks has beside */
export function assembleEngine(
  { folder, config, backend, tokenizer, generation, sizes, maxQueue, runnerOptions }: EngineParts,
  runner: ModelRunner,
  steps: Pick<LocalEngineParts, 'untilIdle' | 'expertRows'> = {},
): LocalEngine {
  const { cache, weightFormat, weightBytes } = runner;
  const { endTokens, sampling } = generation;
  const { contextTokens, maxBatch } = sizes;
  return new LocalEngine({
    ...steps,
    runner,
    backend,
    tokenizer,
    endTokens,
    speculative: runnerOptions.speculative,
    maxBatch,
    defaults: sampling,
    maxQueue,
    grammars: new Grammars(tokenizer, config.vocab_size, endTokens),
    prefillTokens: PREFILL_TOKENS,
    info: {
      name: path.basename(path.resolve(folder)),
      config,
      sampling,
      contextTokens,
      weightFormat,
      weightBytes,
      cacheFormat: cache.format,
      cacheBytesPerToken: cache.bytesPerToken,
      cacheTokens: cache.pages * cache.pageTokens,
      backend: backend.name,
      threads: backend.name === 'native' ? loadAddon()!.info().threads : 1,
    },
  });
}

/** Longest sequence, sequences together, and tokens of the cache. */
export interface EngineSizes {
  contextTokens: number;
  maxBatch: number;
  cacheTokens: number;
}

function cacheSizes(config: ModelConfig, options: EngineOptions): EngineSizes {
  const { max_position_embeddings: most, kv_lora_rank: latent, qk_rope_head_dim: rope } = config;
  const maxBatch = checked('maxBatch', options.maxBatch ?? MAX_BATCH, 1);
  // An upper bound: FP32 takes four bytes, and there may be an MTP module.
  const bytesPerToken = (latent + rope) * (config.num_hidden_layers + 1) * 4;
  const affordable = Math.max(1, Math.floor(CACHE_BYTES / bytesPerToken));
  const given = options.contextTokens ?? options.cacheTokens;
  const contextTokens = checked(
    'contextTokens',
    options.contextTokens ?? Math.min(most, given ?? affordable),
    2,
  );
  if (contextTokens > most) {
    throw new UserError(
      `contextTokens is ${contextTokens}; max_position_embeddings in config.json is ${most}: give that at most`,
    );
  }
  const roomy = Math.min(maxBatch * contextTokens, affordable);
  const cacheTokens = checked('cacheTokens', options.cacheTokens ?? Math.max(contextTokens, roomy), 1);
  if (cacheTokens < contextTokens) {
    throw new UserError(
      `cacheTokens (${cacheTokens}) is less than one context (${contextTokens}); raise it or lower contextTokens`,
    );
  }
  return { contextTokens, maxBatch, cacheTokens };
}

function checked(name: string, value: number, least: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new UserError(`${name} is ${value}: give a whole number of at least ${least}`);
}
