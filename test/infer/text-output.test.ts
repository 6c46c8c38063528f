import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NewToken } from '../../src/infer/sequence.js';
import { StopFinder } from '../../src/infer/stop-strings.js';
import { TextOutput } from '../../src/infer/text-output.js';
import { trainBpe } from '../../src/text/bpe.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { SPECIAL_TOKENS, tokenizerJson } from '../../src/text/tokenizer-files.js';

/** Feeds a text in pieces; everything given out, and whether a stop string was found. */
function find(
  text: string,
  cuts: readonly number[],
  stops: readonly string[],
): { given: string[]; stopped: boolean } {
  const finder = new StopFinder(stops);
  const given: string[] = [];
  const borders = [0, ...cuts, text.length];
  for (let i = 1; i < borders.length; i++) {
    const { text: piece, stopped } = finder.push(text.slice(borders[i - 1], borders[i]));
    given.push(piece);
    if (stopped) return { given, stopped: true };
  }
  return { given: [...given, finder.end()], stopped: false };
}

describe('stop strings', () => {
  it('end the text wherever it is cut, and no part of them is given out', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 24 });
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 });
    const cuts = fc.array(fc.nat(24), { maxLength: 12 });
    fc.assert(
      fc.property(letters, fc.array(stop, { maxLength: 3 }), cuts, (text, stops, where) => {
        const sorted = where.map((cut) => Math.min(cut, text.length)).sort((a, b) => a - b);
        const { given, stopped } = find(text, sorted, stops);
        // Ends are found as the text comes: the first stop string that is complete, and the earliest of those.
        const ends = Array.from({ length: text.length + 1 }, (_, n) => n).map((n) => text.slice(0, n));
        const complete = ends.find((begun) => stops.some((one) => begun.includes(one)));
        expect(stopped).toBe(complete !== undefined);
        const all = given.join('');
        if (!stopped) expect(all).toBe(text);
        else {
          expect(text.startsWith(all)).toBe(true);
          expect(stops.some((one) => all.includes(one))).toBe(false);
          expect(stops.some((one) => text.startsWith(one, all.length))).toBe(true);
        }
      }),
      { numRuns: 1000, seed: 1 },
    );
  });

  it('hold back no more than what may begin one', () => {
    expect(find('Hello wor', [1, 2, 3, 4, 5, 6, 7, 8], ['worse', '\n']).given.slice(0, 7).join('')).toBe(
      'Hello ',
    );
  });
});

describe('the text of tokens', async () => {
  const text = 'naïve 🙂 words, 日本 and more';
  const vocabulary = await trainBpe([text], { vocabSize: 270, specialTokens: Object.values(SPECIAL_TOKENS) });
  const tokenizer = new Tokenizer(new TextEncoder().encode(JSON.stringify(tokenizerJson(vocabulary))));
  const ids = [...tokenizer.encode(text, { addSpecialTokens: false })];
  const tokenOf = (id: number): NewToken => ({ id, logprobs: { id, logprob: -1, top: [] } });

  it('comes in whole characters, each token once', () => {
    const output = new TextOutput(tokenizer, []);
    const events = [...ids.map((id) => output.push(tokenOf(id)).event), output.end()].filter(
      (event) => !!event,
    );
    expect(events.map((event) => event.text).join('')).toBe(text);
    expect(events.flatMap((event) => event.ids)).toEqual(ids);
    expect(events.flatMap((event) => event.tokens!.map(({ id }) => id))).toEqual(ids);
    for (const event of events) expect(event.text).not.toMatch(/\p{Surrogate}/u);
    const bytes = events.flatMap((event) => event.tokens!.flatMap((token) => token.bytes));
    expect(Buffer.from(bytes).toString()).toBe(text);
  });

  it('leaves out the tokens of a stop string', () => {
    const output = new TextOutput(tokenizer, ['words']);
    const seen: number[] = [];
    let given = '';
    for (const id of ids) {
      const { event, stopped } = output.push(tokenOf(id));
      given += event?.text ?? '';
      seen.push(...(event?.ids ?? []));
      if (stopped) break;
    }
    expect(given).toBe('naïve 🙂 ');
    expect(tokenizer.decode(seen)).toBe('naïve 🙂 ');
  });
});
