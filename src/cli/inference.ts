import { type Command, Option } from 'commander';
import type { EngineInfo, EngineOptions, SamplingOptions, Usage, WeightPaging } from '../infer/engine.js';
import { percent, rate } from '../report/units.js';
import { CACHE_FORMATS, type CacheFormat, WEIGHT_FORMATS, type WeightFormat } from '../spec/serving.js';
import { addEngineOptions, type EngineFlags, present } from './engine.js';
import { integer, real } from './options.js';

/** How a model is opened to write text. */
export interface InferenceFlags extends EngineFlags {
  weights?: WeightFormat;
  cache?: CacheFormat;
  ctx?: number;
  speculative: boolean;
}

/** How tokens are chosen, and when the text ends. */
export interface SamplingFlags {
  maxTokens?: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed?: number;
  stop?: string[];
}

/** Used where neither the command nor the model's generation_config.json says anything: less random than the model itself. */
const TEMPERATURE = 0.8;
const TOP_P = 0.95;

/** Declares what `openEngine` takes. */
export function addInferenceOptions(command: Command): Command {
  command
    .addOption(
      new Option('--weights <format>', 'how weights are kept (default: as stored)').choices(WEIGHT_FORMATS),
    )
    .addOption(
      new Option('--cache <format>', 'how the latent cache is kept (default: bf16)').choices(CACHE_FORMATS),
    )
    .option(
      '--ctx <n>',
      "longest text in tokens (default: the model's own limit, as far as 1 GB of cache holds it)",
      integer(2),
    )
    .option('--no-speculative', "do not draft with the model's own MTP module");
  return addEngineOptions(command);
}

/** Declares how tokens are chosen; defaults of `maxTokens` and `seed` are the command's affair. */
export function addSamplingOptions(command: Command): Command {
  const otherwise = (value: number) => `(default: the model's generation_config.json, else ${value})`;
  return command
    .option(
      '--temperature <t>',
      `0 takes the most likely token, 1 samples as the model says ${otherwise(TEMPERATURE)}`,
      real(0, 100),
    )
    .option(
      '--top-p <p>',
      `sample from the most likely tokens that have this share together ${otherwise(TOP_P)}`,
      real(0, 1),
    )
    .option('--top-k <k>', 'sample from so many of the most likely tokens; 0: from all', integer(0))
    .option('--min-p <p>', 'sample from tokens at least this times as likely as the likeliest', real(0, 1))
    .option('--repetition-penalty <f>', 'above 1: less of what was said before', real(0.01, 100))
    .option('--presence-penalty <x>', 'subtracted from the logits of tokens in the answer', signed(2))
    .option('--frequency-penalty <x>', 'the same for each time that they are in it', signed(2))
    .option('--stop <text>', 'end before this text; may be given several times', collect);
}

/** The engine's options of the flags. */
export function engineOptions({
  weights,
  cache,
  ctx,
  speculative,
  backend,
  threads,
}: InferenceFlags): EngineOptions {
  const given = present({ weights, cache, contextTokens: ctx, backend, threads });
  return speculative ? given : { ...given, speculative };
}

/** Sampling of the flags, the model's recommendation and the command line's own, in this order. */
export function samplingOptions(flags: SamplingFlags, { sampling }: EngineInfo): SamplingOptions {
  const { temperature, topP, topK, minP, repetitionPenalty, presencePenalty, frequencyPenalty, seed } = flags;
  const given = { temperature, topP, topK, minP, repetitionPenalty, presencePenalty, frequencyPenalty, seed };
  return { temperature: TEMPERATURE, topP: TOP_P, ...sampling, ...present(given) };
}

/** Tokens per second without the prompt; undefined for fewer than two tokens. */
export const tokensPerSecond = ({ completionTokens, decodeSeconds }: Usage): number | undefined =>
  completionTokens > 1 && decodeSeconds > 0 ? (completionTokens - 1) / decodeSeconds : undefined;

/** One line on how an answer went. */
export function describeUsage(usage: Usage): string {
  const { completionTokens, cachedTokens, promptTokens, draftedTokens, acceptedTokens } = usage;
  const speed = tokensPerSecond(usage);
  return [
    `${completionTokens} tokens`,
    ...(speed === undefined ? [] : [rate(speed, 'tokens')]),
    ...(draftedTokens > 0 ? [`${percent(acceptedTokens / draftedTokens)} of drafts accepted`] : []),
    ...(cachedTokens > 0 ? [`${cachedTokens} of ${promptTokens} prompt tokens in the cache`] : []),
  ].join(', ');
}

/** One line where weights do not all fit into memory, and their files are read again and again. */
export function describePaging(paging: WeightPaging, { weightBytes }: EngineInfo): string | undefined {
  const share = paging.residentWeightBytes / weightBytes;
  if (share > 0.99) return undefined;
  return `${percent(share)} of the weights in memory, ${paging.pagesRead} waits for pages of their files`;
}

const signed = (most: number) => real(-most, most);

const collect = (text: string, before: string[] = []): string[] => [...before, text];
