import {
  type Engine,
  type EngineInfo,
  type EngineStats,
  type FinishReason,
  type GenerateEvent,
  type GenerateRequest,
  type PromptToken,
  QueueFullError,
  type TokenDetail,
  type Usage,
  type WeightPaging,
} from '../../src/infer/engine.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';

/** How a scripted engine behaves; each field is one fault. */
export interface Script {
  /** Pieces of text that every request gets, one token each. */
  pieces: readonly string[];
  /** Fails with this after so many tokens. */
  failAfter?: number;
  failure?: Error;
  /** Requests at once; beyond, the engine's own queue is full. */
  capacity?: number;
  contextTokens?: number;
}

/** Ids of the scripted tokens start here. */
const FIRST_ID = 10;

/**
 * An engine whose words are known in advance, for what a real one does rarely: waiting as long as a test likes, failing in
 * mid-answer, being full.
 */
export class ScriptedEngine implements Engine {
  readonly info: EngineInfo;
  /** Requests as they came. */
  readonly requests: GenerateRequest[] = [];
  /** Requests at work now, and those that were cancelled. */
  active = 0;
  cancelled = 0;
  generated = 0;
  private gate: Promise<void> | undefined;
  private open: (() => void) | undefined;

  constructor(readonly script: Script) {
    const config = parseModelConfig(MODEL_PRESETS.tiny, 'preset tiny');
    this.info = {
      name: 'scripted',
      config: { ...config, vocab_size: 1024 },
      sampling: {},
      contextTokens: script.contextTokens ?? 512,
      weightFormat: 'bf16',
      weightBytes: 1e6,
      cacheFormat: 'bf16',
      cacheBytesPerToken: 288,
      cacheTokens: 4096,
      speculative: false,
      backend: 'reference',
      threads: 1,
    };
  }

  /** No token comes from now on. */
  hold(): void {
    this.gate ??= new Promise((resolve) => {
      this.open = resolve;
    });
  }

  /** Tokens come again. */
  release(): void {
    this.open?.();
    this.gate = undefined;
  }

  async *generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GenerateEvent> {
    if (this.active >= (this.script.capacity ?? Number.POSITIVE_INFINITY)) throw new QueueFullError('full');
    this.requests.push(request);
    this.active++;
    try {
      yield* this.tokens(request, signal);
    } finally {
      this.active--;
    }
  }

  private async *tokens(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GenerateEvent> {
    const { pieces, failAfter, failure } = this.script;
    const stops = request.stop ?? [];
    let text = '';
    let count = 0;
    const done = (reason: FinishReason): GenerateEvent => ({
      type: 'done',
      reason,
      usage: usage(request, count),
    });
    const { prompt, promptLogprobs } = request;
    if (promptLogprobs !== undefined && typeof prompt !== 'string')
      yield {
        type: 'text',
        text: '',
        ids: [],
        prompt: prompt.map((id, i) => promptToken(id, i, promptLogprobs)),
      };
    for (const [i, piece] of pieces.entries()) {
      if (count >= (request.maxTokens ?? Number.POSITIVE_INFINITY)) return yield done('length');
      if (count === failAfter) throw failure ?? new Error('scripted failure');
      await this.turn(signal);
      if (signal?.aborted) {
        this.cancelled++;
        return yield done('cancelled');
      }
      count++;
      this.generated++;
      text += piece;
      if (stops.some((stop) => text.includes(stop))) return yield done('stop');
      const ids = [FIRST_ID + i];
      const tokens =
        request.logprobs === undefined ? {} : { tokens: [detail(ids[0]!, piece, request.logprobs)] };
      yield { type: 'text', text: piece, ids, ...tokens };
    }
    yield done('stop');
  }

  /** Lets the event loop turn, and waits while the engine is held or until the request is cancelled. */
  private async turn(signal?: AbortSignal): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    const { gate } = this;
    if (gate === undefined || signal?.aborted) return;
    const cancelled = new Promise((resolve) => signal?.addEventListener('abort', resolve, { once: true }));
    await Promise.race([gate, cancelled]);
  }

  async stats(): Promise<EngineStats> {
    return {
      running: this.active,
      waiting: 0,
      steps: this.generated,
      batchedSequences: this.generated,
      decodeSteps: 0,
      decodeSequences: 0,
      decodeRows: 0,
      decodeContext: 0,
      decodeSeconds: 0,
      promptTokens: this.requests.reduce((n, { prompt }) => n + prompt.length, 0),
      cachedTokens: 0,
      generatedTokens: this.generated,
      draftedTokens: 0,
      acceptedTokens: 0,
      cachePages: 256,
      cachePagesUsed: this.active,
    };
  }

  async paging(): Promise<WeightPaging> {
    return { residentWeightBytes: 0, pagesRead: 0 };
  }

  async close(): Promise<void> {}
}

const usage = (request: GenerateRequest, completionTokens: number): Usage => ({
  promptTokens: request.prompt.length,
  cachedTokens: 1,
  completionTokens,
  draftedTokens: 0,
  acceptedTokens: 0,
  firstTokenSeconds: 0.001,
  decodeSeconds: 0.001,
});

/** Tokens of a prompt are called `<ID>`; the first one has no log-probability. */
function promptToken(id: number, index: number, top: number): PromptToken {
  const { logprob, top: likely, ...token } = detail(id, `<${id}>`, top);
  return index === 0 ? token : { ...token, logprob, top: likely };
}

/** Log-probabilities that a test can know: -0.5 for the token, -1, -2, … for the most likely ones; -Infinity for the last. */
function detail(id: number, text: string, top: number): TokenDetail {
  const entry = (value: string, logprob: number) => ({
    id,
    text: value,
    bytes: [...Buffer.from(value)],
    logprob,
  });
  const likely = Array.from({ length: top }, (_, i) =>
    entry(`top${i}`, i === top - 1 && top > 1 ? Number.NEGATIVE_INFINITY : -1 - i),
  );
  return { ...entry(text, -0.5), top: likely };
}
