import type { ModelConfig } from '../spec/model.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';

/** What a user of the engine sees; in this process or in a worker alike. */

/** How the next token is chosen. Absent fields follow the model's generation_config.json, else they change nothing. */
export interface SamplingOptions {
  /** 0 takes the most likely token; 1, the default, samples from the model's own distribution. */
  temperature?: number;
  /** Keep this many of the most likely tokens. */
  topK?: number;
  /** Keep the smallest set of tokens whose probabilities sum to at least this. */
  topP?: number;
  /** Keep tokens at least this times as likely as the most likely one [arXiv 2407.01082]. */
  minP?: number;
  /** Divides positive and multiplies negative logits of tokens seen in prompt or continuation [arXiv 1909.05858]. */
  repetitionPenalty?: number;
  /** Subtracted once from the logits of tokens in the continuation. */
  presencePenalty?: number;
  /** Subtracted for each occurrence in the continuation. */
  frequencyPenalty?: number;
  /** Token id → added to its logit. */
  logitBias?: Readonly<Record<number, number>>;
  /** The same seed draws the same tokens. */
  seed?: number;
}

/**
 * What the continuation must look like. `json_object`: any JSON object; `json_schema`: JSON that the schema allows
 * (properties that it does not name are left out). Ends with the JSON, or cut off where `maxTokens` is reached.
 */
export type ResponseFormat =
  | { type: 'text' }
  | { type: 'json_object' }
  | { type: 'json_schema'; schema: object };

export interface GenerateRequest extends SamplingOptions {
  /** Text, or token ids. */
  prompt: string | readonly number[];
  /** Tokens to add at most; until the context is full where absent. */
  maxTokens?: number;
  /** Generation ends before any of these. */
  stop?: readonly string[];
  /** How many most likely tokens to report per token; absent: no log-probabilities. */
  logprobs?: number;
  /**
   * How many most likely tokens to report for each token of the prompt, which is then read in full, whatever the cache has of it;
   * absent: no log-probabilities. With it, `maxTokens` may be 0.
   */
  promptLogprobs?: number;
  /** Do not end at the end-of-sequence token. */
  ignoreEos?: boolean;
  responseFormat?: ResponseFormat;
}

export interface TokenLogprob {
  id: number;
  /** The token's text, as well as it can be shown alone. */
  text: string;
  /** The token's bytes. */
  bytes: number[];
  /** log p under the model's own distribution (before temperature and filters), nats. */
  logprob: number;
}

/** One generated token: its log-probability and the most likely ones at its position. */
export interface TokenDetail extends TokenLogprob {
  top: TokenLogprob[];
}

/** One token of the prompt. The first one follows nothing, so that it has no log-probability. */
export interface PromptToken extends Omit<TokenLogprob, 'logprob'> {
  logprob?: number;
  top?: TokenLogprob[];
}

export interface Usage {
  promptTokens: number;
  /** Of these, found in the cache. */
  cachedTokens: number;
  completionTokens: number;
  /** Tokens drafted by MTP, and those of them that were accepted. */
  draftedTokens: number;
  acceptedTokens: number;
  /** Seconds from submission to the first token, and from the first to the last. */
  firstTokenSeconds: number;
  decodeSeconds: number;
}

export type FinishReason = 'stop' | 'length' | 'cancelled';

export type GenerateEvent =
  /**
   * Text in pieces that never split a character; `tokens` are those that ended since the last event, where log-probabilities are
   * wanted. `prompt` comes with the first event, where they are wanted of the prompt.
   */
  | { type: 'text'; text: string; ids: number[]; tokens?: TokenDetail[]; prompt?: PromptToken[] }
  | { type: 'done'; reason: FinishReason; usage: Usage };

export interface EngineOptions {
  /** As stored where absent. */
  weights?: WeightFormat;
  /** BF16 where absent. */
  cache?: CacheFormat;
  /** Longest sequence in tokens; where absent, the model's own limit as far as a cache of 1 GB holds it. */
  contextTokens?: number;
  /** Tokens that the cache holds over all sequences; where absent, what 1 GB holds and the batch can use. */
  cacheTokens?: number;
  /** Sequences that decode together at most. */
  maxBatch?: number;
  /** Requests that wait at most; beyond, reading a request's events throws `QueueFullError`. */
  maxQueue?: number;
  /** Draft with the model's own MTP module; true where it has one and the backend is native. */
  speculative?: boolean;
  backend?: 'native' | 'reference' | 'auto';
  threads?: number;
}

export interface EngineInfo {
  /** Name of the model: that of its folder. */
  name: string;
  config: ModelConfig;
  /** What its generation_config.json recommends: holds where a request leaves an option open. */
  sampling: SamplingOptions;
  contextTokens: number;
  weightFormat: WeightFormat;
  weightBytes: number;
  cacheFormat: CacheFormat;
  cacheBytesPerToken: number;
  cacheTokens: number;
  speculative: boolean;
  backend: 'native' | 'reference';
  threads: number;
  /** Where the engine spans the ranks of an MPI job; weights and cache are then those of all together. */
  ranks?: EngineRanks;
}

/** Ranks that make up one engine. */
export interface EngineRanks {
  size: number;
  nodes: number;
  /** Ranks that the experts of a layer are spread over. */
  expertParallel: number;
  /** DISPATCH:COMBINE. */
  wire: string;
  /** Copies of experts beyond the first, in each layer. */
  redundantExperts: number;
  /** Of each rank. */
  weightBytes: number[];
}

/** What one rank's experts have computed. */
export interface ExpertRows {
  /** Rows since experts were placed last, by layer. */
  rows: number[];
  placements: PlacementByLoad[];
}

/** How evenly the experts of ranks are loaded: rows of the busiest rank over those of a mean one, all layers one after the other. */
export interface ExpertBalance {
  /** Since experts were placed last. */
  imbalance: number;
  placements: PlacementByLoad[];
}

/** Experts placed anew by measured loads. */
export interface PlacementByLoad {
  /** Passes of the model before it. */
  pass: number;
  /** Measured since the placement before, */
  before: number;
  /** and expected of this one with the same choices. */
  expected: number;
  /** Experts that ranks of a group had to load. */
  moved: number;
  /** In which no token was computed. */
  seconds: number;
}

/** Counters since the start and gauges of now. */
export interface EngineStats {
  running: number;
  waiting: number;
  steps: number;
  /** Sequences summed over steps: divided by `steps`, the mean batch. */
  batchedSequences: number;
  /** Of steps in which every sequence decodes: how many, their sequences, rows and tokens in the cache summed, and seconds of the model. */
  decodeSteps: number;
  decodeSequences: number;
  decodeRows: number;
  decodeContext: number;
  decodeSeconds: number;
  promptTokens: number;
  cachedTokens: number;
  generatedTokens: number;
  draftedTokens: number;
  acceptedTokens: number;
  cachePages: number;
  cachePagesUsed: number;
  /** Of one rank of several, */
  expertRows?: ExpertRows;
  /** and of all together. */
  experts?: ExpertBalance;
}

/** Weights that lie in mapped files. Finding out takes longer the more they are: milliseconds a gigabyte. */
export interface WeightPaging {
  /** Of the weights, those that are in memory now: the others lie in files and are read when an expert is chosen. */
  residentWeightBytes: number;
  /** Pages that this process has waited for while the system read them from files. */
  pagesRead: number;
}

export interface Engine {
  readonly info: EngineInfo;
  /**
   * Starts at once; iterating reads the events. Ending the iteration early frees the request's slot at once; so does
   * aborting the signal, upon which the events end with reason 'cancelled'. What is wrong with a request is thrown by the
   * first read: `UserError` for what it asks for, `QueueFullError` where it has to come again later.
   */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent>;
  stats(): Promise<EngineStats>;
  paging(): Promise<WeightPaging>;
  /** Ends when the running requests have. */
  close(): Promise<void>;
  /** Resolves with the failure that ends the engine by itself; absent where there is none but of single requests. */
  readonly died?: Promise<Error>;
}

/** The queue is full; try again later. */
export class QueueFullError extends Error {
  override name = 'QueueFullError';
}
