import { randomInt } from 'node:crypto';
import { UserError } from '../errors.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { GenerateRequest, SamplingOptions } from './engine.js';
import { resolveSampling } from './sampling-options.js';
import type { SequenceSettings } from './sequence.js';

/** What requests are checked against. */
export interface RequestLimits {
  tokenizer: Tokenizer;
  vocabulary: number;
  contextTokens: number;
  endTokens: ReadonlySet<number>;
  /** For options that a request leaves open. */
  defaults: SamplingOptions;
}

/** OpenAI's limit of `top_logprobs`. */
const MAX_LOGPROBS = 20;
/** Searching takes time for each of them; OpenAI allows 4. Assumed. */
const MAX_STOPS = 16;
const NO_TOKENS: ReadonlySet<number> = new Set();
/** Seeds drawn where a request has none: crypto.randomInt takes ranges below 2^48. */
const SEEDS = 2 ** 47;

/**
 * Checks a request and completes it.
 * @throws UserError naming the field and its value
 */
export function resolveRequest(
  request: GenerateRequest,
  limits: RequestLimits,
): Omit<SequenceSettings, 'constraint'> {
  const prompt = promptTokens(request.prompt, limits);
  const { maxTokens = limits.contextTokens, logprobs, promptLogprobs, stop = [] } = request;
  checkInteger('maxTokens', maxTokens, promptLogprobs === undefined ? 1 : 0, Number.MAX_SAFE_INTEGER);
  for (const [name, count] of Object.entries({ logprobs, promptLogprobs }))
    if (count !== undefined) checkInteger(name, count, 0, MAX_LOGPROBS);
  checkStops(stop);
  const options = { ...limits.defaults, ...withoutAbsent(request) };
  return {
    prompt,
    sampling: resolveSampling(options, limits.vocabulary),
    seed: request.seed ?? randomInt(SEEDS),
    seeded: request.seed !== undefined,
    maxLength: Math.min(prompt.length + maxTokens, limits.contextTokens),
    endTokens: request.ignoreEos ? NO_TOKENS : limits.endTokens,
    logprobs,
    promptLogprobs,
  };
}

function promptTokens(prompt: GenerateRequest['prompt'], limits: RequestLimits): Int32Array {
  const tokens = typeof prompt === 'string' ? limits.tokenizer.encode(prompt) : checkedIds(prompt, limits);
  if (tokens.length === 0) {
    throw new UserError('the prompt is empty and this tokenizer adds no first token; give some text');
  }
  if (tokens.length < limits.contextTokens) return tokens;
  throw new UserError(
    `the prompt has ${tokens.length} tokens, the context ${limits.contextTokens}; shorten the prompt or open the model with a longer context`,
  );
}

function checkedIds(ids: readonly number[], { vocabulary }: RequestLimits): Int32Array {
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  if (wrong === undefined) return Int32Array.from(ids);
  throw new UserError(`prompt: ${wrong} is no token id; they go from 0 to ${vocabulary - 1}`);
}

function checkInteger(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  throw new UserError(`${name} is ${value}: give a whole number ${range}`);
}

function checkStops(stops: readonly string[]): void {
  if (stops.length > MAX_STOPS)
    throw new UserError(`stop has ${stops.length} strings: give ${MAX_STOPS} at most`);
  if (stops.some((stop) => stop === ''))
    throw new UserError('stop: an empty string ends nothing; leave it out');
}

const withoutAbsent = (request: GenerateRequest): SamplingOptions =>
  Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
