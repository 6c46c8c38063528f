import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Backend } from '../tensor/backend.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { Call } from './call.js';
import { EngineCore } from './core.js';
import type {
  Engine,
  EngineInfo,
  EngineStats,
  ExpertRows,
  GenerateEvent,
  GenerateRequest,
  SamplingOptions,
  WeightPaging,
} from './engine.js';
import { Generation } from './generation.js';
import type { Grammars } from './grammar.js';
import { type RequestLimits, resolveRequest } from './request.js';
import type { ModelRunner } from './runner.js';

/** What an engine is made of. */
export interface LocalEngineParts {
  runner: ModelRunner;
  backend: Backend;
  tokenizer: Tokenizer;
  info: Omit<EngineInfo, 'speculative'>;
  /** Tokens that end a text. */
  endTokens: ReadonlySet<number>;
  defaults: SamplingOptions;
  grammars: Grammars;
  maxBatch: number;
  maxQueue: number;
  prefillTokens: number;
  speculative: boolean;
  /** What takes the steps until none is left to do; the engine itself where absent. */
  untilIdle?: () => Promise<void>;
  /** Rows of this rank's experts by layer, where experts are spread over ranks. */
  expertRows?: () => ExpertRows;
}

/** An engine that computes in this thread, step by step; between steps everything else has its turn. */
export class LocalEngine implements Engine {
  readonly info: EngineInfo;
  /** For tests of what it holds. */
  readonly core: EngineCore;
  private readonly limits: RequestLimits;
  /** Requests that are not in the queue yet: their schemas are being compiled. */
  private readonly starting = new Set<Promise<void>>();
  private loop: Promise<void> | undefined;
  private closing: Promise<void> | undefined;

  constructor(private readonly parts: LocalEngineParts) {
    const { runner, tokenizer, info, endTokens, defaults } = parts;
    this.core = new EngineCore(runner, parts);
    this.info = { ...info, speculative: this.core.speculative };
    const { contextTokens } = info;
    this.limits = { tokenizer, vocabulary: runner.config.vocab_size, contextTokens, endTokens, defaults };
  }

  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent> {
    const call = new Call(signal);
    const started = this.start(request, call)
      .catch((error: Error) => call.fail(error))
      .finally(() => this.starting.delete(started));
    this.starting.add(started);
    return call.events;
  }

  /** Requests under way. */
  get open(): number {
    const { running, waiting } = this.core.scheduler;
    return this.starting.size + running.length + waiting.length;
  }

  async stats(): Promise<EngineStats> {
    const { expertRows } = this.parts;
    return { ...this.core.stats(), ...(expertRows ? { expertRows: expertRows() } : {}) };
  }

  async paging(): Promise<WeightPaging> {
    return this.core.paging();
  }

  close(): Promise<void> {
    this.closing ??= this.finish();
    return this.closing;
  }

  private async start(request: GenerateRequest, call: Call): Promise<void> {
    if (this.closing) throw new Error('the engine is closed');
    // Spares the work for a request that the queue would not take.
    this.core.scheduler.checkRoom();
    const settings = resolveRequest(request, this.limits);
    const { tokenizer, grammars } = this.parts;
    const constraint = await grammars.constraint(request.responseFormat);
    try {
      const generation = new Generation(request, { ...settings, constraint }, tokenizer, call);
      this.core.submit(generation.sequence);
      call.onCancel = () => this.core.cancel(generation.sequence);
      if (call.cancelled) call.onCancel();
    } catch (error) {
      constraint?.dispose();
      throw error;
    }
    this.loop ??= this.run();
  }

  private async run(): Promise<void> {
    // A request may come between the end of the last step and the news of it.
    do await (this.parts.untilIdle?.() ?? this.stepUntilIdle());
    while (!this.core.idle);
    this.loop = undefined;
  }

  private async stepUntilIdle(): Promise<void> {
    // Requests of this turn join the first step.
    await nextTurn();
    while (!this.core.idle) {
      await this.core.prepare();
      this.step();
      await nextTurn();
    }
  }

  /** One step where there is something to do; what fails ends the requests. */
  step(): void {
    if (this.core.idle) return;
    try {
      this.core.step();
    } catch (error) {
      this.core.fail(error as Error);
    }
  }

  private async finish(): Promise<void> {
    await Promise.all(this.starting);
    await this.loop;
    await this.parts.grammars.close();
    this.parts.runner.close();
  }
}
