import type { PromptToken, TokenDetail, TokenLogprob } from '../infer/engine.js';

/** What OpenAI gives for tokens that cannot come; JSON has no infinity. */
const IMPOSSIBLE = -9999;
const finite = (logprob: number): number => (Number.isFinite(logprob) ? logprob : IMPOSSIBLE);

/** `logprobs.content` of chat completions. */
export const contentLogprobs = (details: readonly TokenDetail[]): object[] =>
  details.map((detail) => ({ ...entry(detail), top_logprobs: detail.top.map(entry) }));

const entry = ({ text, bytes, logprob }: TokenLogprob) => ({ token: text, bytes, logprob: finite(logprob) });

/**
 * `logprobs` of completions: parallel lists. Offsets count characters of the choice's text, on from call to call.
 * @returns what lists the tokens that came next in a choice
 */
export function offsetLogprobs(): (index: number, details: readonly (TokenDetail | PromptToken)[]) => object {
  const lengths = new Map<number, number>();
  return (index, details) => {
    let offset = lengths.get(index) ?? 0;
    const offsets = details.map(({ text }) => {
      const at = offset;
      offset += text.length;
      return at;
    });
    lengths.set(index, offset);
    return {
      tokens: details.map(({ text }) => text),
      // The first token of a prompt follows nothing.
      token_logprobs: details.map(({ logprob }) => (logprob === undefined ? null : finite(logprob))),
      top_logprobs: details
        .map(({ top }) => top && Object.fromEntries(top.map(({ text, logprob }) => [text, finite(logprob)])))
        .map((top) => top ?? null),
      text_offset: offsets,
    };
  };
}
