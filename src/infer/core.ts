import type { Backend } from '../tensor/backend.js';
import { Tensor } from '../tensor/tensor.js';
import { Drafter } from './drafter.js';
import type { EngineStats, FinishReason, WeightPaging } from './engine.js';
import type { Constraint } from './grammar.js';
import { LogitOps } from './logit-ops.js';
import { logprobsOf } from './logprobs.js';
import type { ModelRunner } from './runner.js';
import { Sampler } from './sampler.js';
import { type Portion, rowsOf, Scheduler, wantedRows } from './scheduler.js';
import type { Sequence } from './sequence.js';
import { type KeptRows, stepBatch } from './step-batch.js';
import { StepCosts } from './step-costs.js';

export interface CoreSettings {
  /** What the passes over the vocabulary are computed with. */
  backend: Backend;
  maxBatch: number;
  maxQueue: number;
  /** Prompt tokens of a step at most, */
  prefillTokens: number;
  /** and beside sequences that decode; what measured costs allow where absent. */
  mixedPrefillTokens?: number;
  /** Draft with the model's MTP module where it has one. */
  speculative: boolean;
  /** Seconds from any moment on, to measure steps; the machine's where absent. */
  clock?: () => number;
}

/** What a step did to one sequence. */
interface Advance {
  kept: KeptRows;
  /** Why the sequence ends, if it does. */
  ends: FinishReason | Error | undefined;
}

/**
 * Sequences of token ids through a model: in each step every running sequence gets one token, or two where the one that
 * the MTP module drafted was right. Text and events are the business of who submits.
 *
 * A step of the main model computes t_n, the last known token, and behind it the draft of t_{n+1}, in one batch with
 * all other sequences. Row n says what t_{n+1} should be: a right draft is accepted, and row n+1 gives t_{n+2}; a wrong
 * one is replaced, and its place in the cache is written again. The MTP module then reads the hidden states of
 * the accepted rows with the tokens after them, and drafts anew [TR §2.2, §2.3.3].
 */
export class EngineCore {
  readonly scheduler: Scheduler;
  /** Whether the engine drafts. */
  readonly speculative: boolean;
  private readonly ops: LogitOps;
  private readonly sampler: Sampler;
  private readonly costs = new StepCosts();
  private readonly clock: () => number;
  /** Where the engine drafts. */
  private readonly drafter: Drafter | undefined;
  private readonly counters = {
    steps: 0,
    batchedSequences: 0,
    decodeSteps: 0,
    decodeSequences: 0,
    decodeRows: 0,
    decodeContext: 0,
    decodeSeconds: 0,
    generatedTokens: 0,
    draftedTokens: 0,
    acceptedTokens: 0,
  };

  constructor(
    private readonly runner: ModelRunner,
    settings: CoreSettings,
  ) {
    this.speculative = settings.speculative && runner.draftDepth > 0;
    this.ops = new LogitOps(settings.backend, runner.config.vocab_size);
    this.sampler = new Sampler(this.ops);
    this.clock = settings.clock ?? (() => performance.now() / 1000);
    this.drafter = this.speculative ? new Drafter(runner, this.sampler, this.clock) : undefined;
    const { pages, pageTokens } = runner.cache;
    const { mixedPrefillTokens: fixed } = settings;
    this.scheduler = new Scheduler({
      ...settings,
      mixedPrefillTokens: (decoding) => fixed ?? this.costs.promptTokens(decoding),
      pages,
      pageTokens,
      lookahead: this.speculative ? 1 : 0,
      copyPage: (from, to) => runner.copyPage(from, to),
    });
  }

  get idle(): boolean {
    return this.scheduler.running.length + this.scheduler.waiting.length === 0;
  }

  /** @throws QueueFullError */
  submit(sequence: Sequence): void {
    this.scheduler.add(sequence);
  }

  /** Ends a sequence at once; nothing where it has ended already. */
  cancel(sequence: Sequence): void {
    if (sequence.state !== 'ended') this.end(sequence, 'cancelled');
  }

  /** Ends everything with an error. */
  fail(error: Error): void {
    for (const sequence of [...this.scheduler.running, ...this.scheduler.waiting]) this.end(sequence, error);
  }

  /** Brings what constraints allow up to date, before each step; ends sequences that are complete. */
  async prepare(): Promise<void> {
    const constrained = this.scheduler.running.filter(({ settings }) => settings.constraint);
    await Promise.all(constrained.map((sequence) => this.refresh(sequence, sequence.settings.constraint!)));
  }

  private async refresh(sequence: Sequence, constraint: Constraint): Promise<void> {
    try {
      await constraint.refresh();
      if (constraint.complete && sequence.state !== 'ended') this.end(sequence, 'stop');
    } catch (error) {
      if (sequence.state !== 'ended') this.end(sequence, error as Error);
    }
  }

  /** One step of all running sequences; there must be one. */
  step(): void {
    const portions = this.scheduler.plan();
    if (portions.length === 0) throw new Error('requests wait and none can go on');
    this.counters.steps++;
    this.counters.batchedSequences += portions.length;
    const started = this.clock();
    const { logits, hidden } = this.runner.step(stepBatch(portions));
    this.countDecoding(portions, this.clock() - started);
    const advances = this.advanceAll(portions, logits);
    const kept = advances.map((advance) => advance.kept);
    this.drafter?.run(portions, kept, hidden, started);
    if (readsPrompts(portions)) this.costs.note(rowsOf(portions), this.clock() - started);
    for (const { kept, ends } of advances) {
      kept.sequence.filled = kept.sequence.cached - kept.sequence.behind.count;
      if (ends) this.end(kept.sequence, ends);
      else if (kept.from < kept.sequence.settings.prompt.length) this.scheduler.share(kept.sequence);
    }
  }

  /** Counts the step where every sequence takes one token in, and its draft where it has one. */
  private countDecoding(portions: readonly Portion[], seconds: number): void {
    if (portions.some(({ complete, count }) => !complete || count !== 1)) return;
    const { counters } = this;
    counters.decodeSteps++;
    counters.decodeSeconds += seconds;
    counters.decodeSequences += portions.length;
    for (const { sequence, drafted } of portions) {
      counters.decodeRows += drafted ? 2 : 1;
      counters.decodeContext += sequence.cached;
    }
  }

  stats(): EngineStats {
    const { running, waiting, allocator, promptTokens, cachedTokens } = this.scheduler;
    return {
      ...this.counters,
      promptTokens,
      cachedTokens,
      running: running.length,
      waiting: waiting.length,
      cachePages: allocator.total,
      cachePagesUsed: allocator.used,
    };
  }

  paging(): WeightPaging {
    return {
      residentWeightBytes: this.runner.residentWeightBytes(),
      pagesRead: process.resourceUsage().majorPageFault,
    };
  }

  private end(sequence: Sequence, reason: FinishReason | Error): void {
    this.scheduler.remove(sequence);
    sequence.settings.constraint?.dispose();
    if (reason instanceof Error) sequence.sink.failed(reason);
    else sequence.sink.done(reason);
  }

  /** @param logits f32 [wanted, V] */
  private advanceAll(portions: readonly Portion[], logits: Tensor): Advance[] {
    let [row, wanted] = [0, 0];
    return portions.map((portion) => {
      const { sequence, count, drafted, complete } = portion;
      const from = sequence.cached;
      const rows = Array.from({ length: wantedRows(portion) }, (_, i) => rowOf(logits, wanted + i));
      wanted += rows.length;
      sequence.cached += count;
      const ends = this.advanceSafely(portion, from, rows, portions.length);
      // Tokens that are kept although they are not: end tokens, which `tokens` does not hold.
      const end = Math.min(sequence.cached, sequence.tokens.length - 1);
      const drafts = complete && !ends && sequence.mayDraft;
      const kept = { sequence, row, from, count: Math.max(0, end - from), drafts, ends: ends !== undefined };
      row += count + (drafted ? 1 : 0);
      return { kept, ends };
    });
  }

  /** @param rows f32 [1, V] each: the wanted ones of the portion @returns why the sequence ends, if it does */
  private advanceSafely(
    portion: Portion,
    from: number,
    rows: Tensor[],
    sequences: number,
  ): FinishReason | Error | undefined {
    const { sequence, drafted, complete } = portion;
    try {
      if (sequence.scoring) this.scorePrompt(sequence, from, rows);
      if (!complete) return undefined;
      // Nothing is to be added to a prompt that was only to be scored.
      if (sequence.tokens.length >= sequence.settings.maxLength) return 'length';
      return this.sample(sequence, rows.slice(drafted ? -2 : -1), sequences);
    } catch (error) {
      return error as Error;
    }
  }

  /** @param rows logits f32 [1, V] each, of the positions from `from` on */
  private scorePrompt(sequence: Sequence, from: number, rows: readonly Tensor[]): void {
    const { prompt, promptLogprobs } = sequence.settings;
    for (; sequence.scored < prompt.length; sequence.scored++) {
      const row = rows[sequence.scored - 1 - from];
      if (!row) return;
      const id = prompt[sequence.scored]!;
      sequence.sink.scored({ id, logprobs: logprobsOf(this.ops, row, id, promptLogprobs!) });
    }
  }

  /** The next token, and the one after it where the drafted token is right. @param rows f32 [1, V] each */
  private sample(sequence: Sequence, rows: readonly Tensor[], sequences: number): FinishReason | undefined {
    const { draft, random, history, settings } = sequence;
    if (!draft) return this.sampleOne(sequence, rows[0]!);
    sequence.draft = undefined;
    const before = this.raw(sequence, rows[0]!);
    const found = this.sampler.verify(draft, rows[0]!, settings.sampling, history, random);
    this.countDraft(sequence, found.accepted, sequences);
    const ends = this.push(sequence, found.token, before);
    if (!found.accepted || ends) return ends;
    sequence.cached++;
    return this.sampleOne(sequence, rows[1]!);
  }

  private sampleOne(sequence: Sequence, logits: Tensor): FinishReason | undefined {
    const { random, history, settings } = sequence;
    const before = this.raw(sequence, logits);
    const mask = settings.constraint?.mask;
    return this.push(sequence, this.sampler.sample(logits, settings.sampling, history, random, mask), before);
  }

  /** The logits as the model gave them, where log-probabilities are wanted: sampling overwrites them. */
  private raw({ settings }: Sequence, logits: Tensor): Tensor | undefined {
    return settings.logprobs === undefined ? undefined : Tensor.f32(logits.shape, logits.data);
  }

  private push(sequence: Sequence, id: number, raw: Tensor | undefined): FinishReason | undefined {
    this.counters.generatedTokens++;
    const logprobs = raw ? logprobsOf(this.ops, raw, id, sequence.settings.logprobs!) : undefined;
    return sequence.push({ id, logprobs });
  }

  private countDraft(sequence: Sequence, accepted: boolean, sequences: number): void {
    this.drafter?.drafted(sequence, accepted, sequences);
    this.counters.draftedTokens++;
    if (accepted) this.counters.acceptedTokens++;
  }
}

/** Whether a step is more than decoding. */
const readsPrompts = (portions: readonly Portion[]): boolean => portions.some(({ count }) => count > 1);

/** Row of logits [rows, V]; may be overwritten. */
const rowOf = (logits: Tensor, row: number): Tensor => logits.rowsView(row, row + 1);
