import { referenceBackend } from '../../src/backend/reference/index.js';
import { type CoreSettings, EngineCore } from '../../src/infer/core.js';
import type { FinishReason, SamplingOptions } from '../../src/infer/engine.js';
import type { ModelRunner } from '../../src/infer/runner.js';
import { resolveSampling } from '../../src/infer/sampling-options.js';
import { type NewToken, Sequence, type Sink } from '../../src/infer/sequence.js';

export interface TokenRequest extends SamplingOptions {
  prompt: readonly number[];
  maxTokens?: number;
  endTokens?: readonly number[];
  promptLogprobs?: number;
}

/** A sequence that keeps what it was given. */
export class Recorded implements Sink {
  readonly tokens: number[] = [];
  /** Of the prompt, from the second token on. */
  readonly prompt: { id: number; logprob: number; top: number[] }[] = [];
  readonly sequence: Sequence;
  reason: FinishReason | Error | undefined;

  constructor(
    { prompt, maxTokens = 8, endTokens = [], promptLogprobs, ...options }: TokenRequest,
    vocabulary: number,
  ) {
    this.sequence = new Sequence(
      {
        prompt: Int32Array.from(prompt),
        sampling: resolveSampling(options, vocabulary),
        seed: options.seed ?? 0,
        seeded: options.seed !== undefined,
        maxLength: prompt.length + maxTokens,
        endTokens: new Set(endTokens),
        logprobs: undefined,
        promptLogprobs,
        constraint: undefined,
      },
      this,
    );
  }

  scored({ id, logprobs }: NewToken): void {
    this.prompt.push({ id, logprob: logprobs!.logprob, top: logprobs!.top.map((one) => one.id) });
  }

  token({ id }: NewToken): undefined {
    this.tokens.push(id);
  }

  done(reason: FinishReason): void {
    this.reason = reason;
  }

  failed(error: Error): void {
    this.reason = error;
  }
}

/** A core whose every step is checked. */
export class CheckedCore {
  readonly core: EngineCore;

  constructor(
    readonly runner: ModelRunner,
    settings: Partial<CoreSettings> = {},
  ) {
    this.core = new EngineCore(runner, {
      backend: referenceBackend,
      maxBatch: 8,
      maxQueue: 1000,
      prefillTokens: 16,
      mixedPrefillTokens: 4,
      speculative: true,
      ...settings,
    });
  }

  submit(request: TokenRequest): Recorded {
    const recorded = new Recorded(request, this.runner.config.vocab_size);
    this.core.submit(recorded.sequence);
    return recorded;
  }

  step(): void {
    this.core.step();
    this.core.scheduler.verify();
  }

  /** Steps until nothing is left to do. */
  finish(): void {
    for (let steps = 0; !this.core.idle; steps++) {
      if (steps > 10_000) throw new Error('no end after 10,000 steps');
      this.step();
    }
  }

  /** The continuation of one request on its own. */
  run(request: TokenRequest): number[] {
    const recorded = this.submit(request);
    this.finish();
    if (recorded.reason instanceof Error) throw recorded.reason;
    return recorded.tokens;
  }
}
