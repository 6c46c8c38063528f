import type { Engine } from '../infer/engine.js';
import { badRequest } from './errors.js';
import type { Prompts } from './prompts.js';

/** What a server serves. */
export interface ServedModel {
  /** Its name in the API. */
  id: string;
  engine: Engine;
  prompts: Prompts;
}

/**
 * The number of tokens to add at most: what is asked for, but no more than there is room for; an answer that fills the
 * context ends with the reason "length" like any other.
 * @throws ApiError in OpenAI's words where the prompt leaves no room at all
 */
export function tokenLimit(
  model: ServedModel,
  prompt: readonly number[],
  wanted: number | undefined,
  param: string,
): number {
  const { contextTokens } = model.engine.info;
  const room = contextTokens - prompt.length;
  if (room >= 1) return Math.min(wanted ?? room, room);
  throw badRequest(
    `This model's maximum context length is ${contextTokens} tokens. However, your ${param} resulted in ` +
      `${prompt.length} tokens. Please reduce the length of the ${param}.`,
    param,
    'context_length_exceeded',
  );
}

/** The fields of `/v1/models` for this model; those after `owned_by` are beyond OpenAI's. */
export function describeModel({ id, engine: { info }, prompts }: ServedModel, created: number): object {
  return {
    id,
    object: 'model',
    created,
    owned_by: 'fathom',
    max_model_len: info.contextTokens,
    chat_template: prompts.hasChatTemplate,
    weights: info.weightFormat,
    weight_bytes: info.weightBytes,
    cache: info.cacheFormat,
    cache_bytes_per_token: info.cacheBytesPerToken,
    cache_tokens: info.cacheTokens,
    speculative: info.speculative,
    backend: info.backend,
  };
}
