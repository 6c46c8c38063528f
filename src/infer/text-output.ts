import type { TextStream } from '../text/streams.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { GenerateEvent, PromptToken, TokenDetail, TokenLogprob } from './engine.js';
import type { IdLogprob } from './logprobs.js';
import type { NewToken } from './sequence.js';
import { StopFinder } from './stop-strings.js';

type TextEvent = Extract<GenerateEvent, { type: 'text' }>;

/** From token ids to pieces of text: whole characters only, and nothing of a stop string. */
export class TextOutput {
  private readonly stream: TextStream;
  private readonly stops: StopFinder;
  /** Tokens whose text has not been given out, with the length of the text before each. */
  private pending: { token: NewToken; start: number }[] = [];
  /** UTF-16 units decoded, and those given out. */
  private decoded = 0;
  private given = 0;

  constructor(
    private readonly tokenizer: Tokenizer,
    stops: readonly string[],
  ) {
    this.stream = tokenizer.stream({ skipSpecialTokens: true });
    this.stops = new StopFinder(stops);
  }

  /** Takes a token; gives the text that has become certain. */
  push(token: NewToken): { event: TextEvent | undefined; stopped: boolean } {
    this.pending.push({ token, start: this.decoded });
    const piece = this.stream.push(token.id);
    this.decoded += piece.length;
    const { text, stopped } = this.stops.push(piece);
    return { event: text === '' ? undefined : this.give(text), stopped };
  }

  /** The tokens of a prompt, but for the first one with their log-probabilities. */
  prompt(first: number, others: readonly NewToken[]): PromptToken[] {
    const { logprob: _, ...unscored } = this.named({ id: first, logprob: 0 });
    return [unscored, ...others.map((token) => this.detail(token)!)];
  }

  /** What is left once no more tokens come; not after a stop string. */
  end(): TextEvent | undefined {
    const { text, stopped } = this.stops.push(this.stream.end());
    const rest = stopped ? text : text + this.stops.end();
    if (rest === '' && this.pending.length === 0) return undefined;
    return this.give(rest, true);
  }

  private give(text: string, all = false): TextEvent {
    this.given += text.length;
    const ends = all ? -1 : this.pending.findIndex(({ start }) => start >= this.given);
    const count = ends < 0 ? this.pending.length : ends;
    const tokens = this.pending.splice(0, count).map(({ token }) => token);
    const event: TextEvent = { type: 'text', text, ids: tokens.map(({ id }) => id) };
    const details = tokens.map((token) => this.detail(token)).filter((detail) => detail !== undefined);
    return details.length > 0 ? { ...event, tokens: details } : event;
  }

  private detail({ logprobs }: NewToken): TokenDetail | undefined {
    return logprobs && { ...this.named(logprobs), top: logprobs.top.map((one) => this.named(one)) };
  }

  private named({ id, logprob }: IdLogprob): TokenLogprob {
    const bytes = this.tokenizer.tokenBytes(id);
    return { id, text: new TextDecoder().decode(bytes), bytes: [...bytes], logprob };
  }
}
