/**
 * Finding added tokens (`<｜User｜>` and the like) in a text before the model sees it, with the rules of
 * Hugging Face `tokenizers`: leftmost first, longest among those; `single_word` tokens only between non-word
 * characters; `lstrip` and `rstrip` tokens take the white space beside them along.
 */
import type { AddedTokenConfig } from './tokenizer-schema.js';

/** A stretch of text to encode, or an added token found (`id` set). */
export interface Section {
  text: string;
  id?: number;
}

const WORD_BEFORE = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const WORD_AFTER = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const SPACE_AFTER = /\p{White_Space}*/uy;
const WHITE_SPACE = /\p{White_Space}/u;

/** Finds the tokens of one pass (before or after normalisation). */
export class AddedTokenFinder {
  private readonly tokens: Map<string, AddedTokenConfig>;
  private readonly pattern: RegExp | null;

  /** @param normalize what the text will have gone through, so that the tokens are looked for in that form */
  constructor(tokens: readonly AddedTokenConfig[], normalize: (text: string) => string) {
    const spelled = tokens.map((token) => [normalize(token.content), token] as const);
    this.tokens = new Map(spelled.filter(([spelling]) => spelling !== ''));
    const longestFirst = [...this.tokens.keys()].sort((a, b) => b.length - a.length);
    this.pattern =
      longestFirst.length === 0 ? null : new RegExp(longestFirst.map(escapeForRegExp).join('|'), 'g');
  }

  /** Cuts `text` into added tokens and the stretches between them; empty stretches are left out. */
  split(text: string): Section[] {
    if (this.pattern === null) return text === '' ? [] : [{ text }];
    const sections: Section[] = [];
    let done = 0;
    for (const match of text.matchAll(this.pattern)) {
      const token = this.tokens.get(match[0])!;
      const [start, end] = extent(text, match.index, match.index + match[0].length, token, done);
      if (start < 0) continue;
      if (start > done) sections.push({ text: text.slice(done, start) });
      sections.push({ text: text.slice(start, end), id: token.id });
      done = end;
    }
    if (done < text.length) sections.push({ text: text.slice(done) });
    return sections;
  }
}

/** Where the token found at [start, end) begins and ends with its white space; [-1, -1] when it does not count. */
function extent(
  text: string,
  start: number,
  end: number,
  token: AddedTokenConfig,
  from: number,
): [number, number] {
  if (start < from || (token.single_word && touchesWord(text, start, end))) return [-1, -1];
  let [first, last] = [start, end];
  if (token.lstrip) while (first > from && WHITE_SPACE.test(text[first - 1])) first--;
  if (token.rstrip) {
    SPACE_AFTER.lastIndex = end;
    last += SPACE_AFTER.exec(text)![0].length;
  }
  return [first, last];
}

function touchesWord(text: string, start: number, end: number): boolean {
  // Two code units on each side hold any one character.
  return (
    WORD_BEFORE.test(text.slice(Math.max(0, start - 2), start)) || WORD_AFTER.test(text.slice(end, end + 2))
  );
}

function escapeForRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}
