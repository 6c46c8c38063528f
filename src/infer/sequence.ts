import { Random } from '../numerics/random.js';
import { Behind } from './behind.js';
import { DraftTrial } from './draft-trial.js';
import type { FinishReason } from './engine.js';
import type { Constraint } from './grammar.js';
import type { IdLogprob } from './logprobs.js';
import type { Draft, History } from './sampler.js';
import type { Sampling } from './sampling-options.js';
import { TokenList } from './token-list.js';

/** A generated token and, where asked for, its log-probability and the most likely ones. */
export interface NewToken {
  id: number;
  logprobs: (IdLogprob & { top: IdLogprob[] }) | undefined;
}

/** Where the tokens of a sequence go. */
export interface Sink {
  /** The prompt's next token, from the second one on, where its log-probabilities are wanted. */
  scored(token: NewToken): void;
  /** A token; the answer 'stop' ends the sequence. */
  token(token: NewToken): 'stop' | undefined;
  /** The sequence has ended and holds nothing any more. */
  done(reason: FinishReason): void;
  /** The sequence has ended because of a failure. */
  failed(error: Error): void;
}

export interface SequenceSettings {
  prompt: Int32Array;
  sampling: Sampling;
  seed: number;
  /** Whether the seed was asked for. */
  seeded: boolean;
  /** Length of prompt and continuation at most. */
  maxLength: number;
  /** Tokens that end the sequence; not part of the continuation. */
  endTokens: ReadonlySet<number>;
  /** Most likely tokens to report; undefined: no log-probabilities. */
  logprobs: number | undefined;
  /** The same for tokens of the prompt. */
  promptLogprobs: number | undefined;
  /** What the continuation must look like. */
  constraint: Constraint | undefined;
}

/** One running or waiting request, as token ids. */
export class Sequence {
  /** Prompt and continuation. */
  readonly tokens: TokenList;
  readonly random: Random;
  readonly history: History;
  /** Pages that this sequence holds, in order. */
  pages: number[] = [];
  /** Positions in the cache of the main model. */
  cached = 0;
  /** Positions that all cache layers hold, an MTP module's included. */
  filled = 0;
  /** The drafted token that follows `tokens`. */
  draft: Draft | undefined;
  /** Positions found in the cache at admission. */
  reused = 0;
  draftedTokens = 0;
  acceptedTokens = 0;
  /** Tokens of the prompt whose log-probabilities are known; that of the first one does not exist. */
  scored = 1;
  /** Place in the order of arrival. */
  order = -1;
  /** `new` until it runs for the first time; `waiting` when its pages were given to others meanwhile. */
  state: 'new' | 'waiting' | 'running' | 'ended' = 'new';
  /** What the MTP module has not read yet. */
  readonly behind = new Behind();
  private readonly trial = new DraftTrial();
  private readonly counts = new Map<number, number>();
  private readonly seen: Set<number>;

  constructor(
    readonly settings: SequenceSettings,
    readonly sink: Sink,
  ) {
    this.tokens = new TokenList(settings.prompt);
    this.random = new Random(settings.seed);
    this.seen = new Set(this.penalises ? settings.prompt : []);
    this.history = { seen: this.seen, continuation: this.counts };
  }

  private get penalises(): boolean {
    return this.settings.sampling.repetitionPenalty !== 1;
  }

  /** Tokens of the continuation. */
  get generated(): number {
    return this.tokens.length - this.settings.prompt.length;
  }

  /** Known tokens that are not in the cache yet; the last one gives the next token's logits. */
  get remaining(): number {
    return this.tokens.length - this.cached;
  }

  /** Whether log-probabilities of the prompt are still wanted. */
  get scoring(): boolean {
    const { promptLogprobs, prompt } = this.settings;
    return promptLogprobs !== undefined && this.scored < prompt.length;
  }

  /** Positions that may be taken from the cache: the next token's logits have to be computed. */
  get reusable(): number {
    return this.scoring ? this.scored - 1 : this.tokens.length - 1;
  }

  /** Whether drafting may pay: it has lately, at least two more tokens are wanted, and no grammar decides over each. */
  get mayDraft(): boolean {
    const { constraint, maxLength } = this.settings;
    return !constraint && this.tokens.length + 2 <= maxLength && this.trial.active(this.tokens.length);
  }

  /**
   * Whether a seed decides the tokens: drafts change which random numbers a token is drawn with, so that nothing which is measured
   * may decide about them.
   */
  get pinned(): boolean {
    return this.settings.seeded && this.settings.sampling.temperature > 0;
  }

  /** Notes how a draft went; drafting pauses where too few are right. @param leastAcceptance share of right ones that pays */
  drafted(accepted: boolean, leastAcceptance: number): void {
    this.draftedTokens++;
    if (accepted) this.acceptedTokens++;
    this.trial.note(accepted, this.tokens.length, leastAcceptance);
  }

  /** Gives up what the cache holds. */
  forget(): void {
    this.pages = [];
    this.cached = this.filled = this.behind.count = 0;
  }

  /** Takes a sampled token. @returns why the sequence ends with it, if it does */
  push(token: NewToken): FinishReason | undefined {
    const { endTokens, maxLength, constraint } = this.settings;
    if (endTokens.has(token.id)) return 'stop';
    constraint?.accept(token.id);
    this.tokens.push(token.id);
    this.counts.set(token.id, (this.counts.get(token.id) ?? 0) + 1);
    if (this.penalises) this.seen.add(token.id);
    const stopped = this.sink.token(token);
    if (stopped) return 'stop';
    return this.tokens.length >= maxLength ? 'length' : undefined;
  }
}
