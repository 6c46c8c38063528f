import type { Tokenizer } from '../text/tokenizer.js';
import type { Call } from './call.js';
import type { FinishReason, GenerateRequest, Usage } from './engine.js';
import { type NewToken, Sequence, type SequenceSettings, type Sink } from './sequence.js';
import { TextOutput } from './text-output.js';

/** A request on its way: takes the tokens of its sequence and gives events. */
export class Generation implements Sink {
  readonly sequence: Sequence;
  private readonly output: TextOutput;
  private readonly submitted = performance.now();
  private first: number | undefined;
  private last = 0;
  private stopped = false;
  /** Of the prompt, from the second token on. */
  private readonly promptTokens: NewToken[] = [];
  private promptGiven = false;

  constructor(
    request: GenerateRequest,
    settings: SequenceSettings,
    tokenizer: Tokenizer,
    private readonly call: Call,
  ) {
    this.output = new TextOutput(tokenizer, request.stop ?? []);
    this.sequence = new Sequence(settings, this);
  }

  scored(token: NewToken): void {
    this.promptTokens.push(token);
  }

  token(token: NewToken): 'stop' | undefined {
    this.last = performance.now();
    this.first ??= this.last;
    this.givePrompt();
    const { event, stopped } = this.output.push(token);
    if (event) this.call.push(event);
    if (!stopped) return undefined;
    this.stopped = true;
    return 'stop';
  }

  done(reason: FinishReason): void {
    this.givePrompt();
    const rest = this.stopped ? undefined : this.output.end();
    if (rest) this.call.push(rest);
    this.call.push({ type: 'done', reason, usage: this.usage() });
  }

  /** Gives the log-probabilities of the prompt, once, when it has been read. */
  private givePrompt(): void {
    const { prompt, promptLogprobs } = this.sequence.settings;
    if (promptLogprobs === undefined || this.promptGiven) return;
    this.promptGiven = true;
    this.call.push({
      type: 'text',
      text: '',
      ids: [],
      prompt: this.output.prompt(prompt[0]!, this.promptTokens),
    });
  }

  failed(error: Error): void {
    this.call.fail(error);
  }

  private usage(): Usage {
    const { settings, reused, generated, draftedTokens, acceptedTokens } = this.sequence;
    const first = this.first ?? performance.now();
    return {
      promptTokens: settings.prompt.length,
      cachedTokens: reused,
      completionTokens: generated,
      draftedTokens,
      acceptedTokens,
      firstTokenSeconds: (first - this.submitted) / 1000,
      decodeSeconds: Math.max(0, this.last - first) / 1000,
    };
  }
}
