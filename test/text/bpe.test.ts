import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type BpeVocabulary, trainBpe } from '../../src/text/bpe.js';
import { BYTE_TO_CHAR } from '../../src/text/byte-level.js';
import { ChatTemplate } from '../../src/text/chat-template.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { SPECIAL_TOKENS, saveTokenizer, tokenizerJson } from '../../src/text/tokenizer-files.js';
import { goldenPath, readGolden } from './goldens.js';

const specialTokens = Object.values(SPECIAL_TOKENS);
const sample = fs.readFileSync(goldenPath('sample.txt'), 'utf8');

/** BPE as one would explain it: recount every pair before every merge. Words are runs of letters here. */
function trainSlowly(text: string, vocabSize: number): BpeVocabulary {
  const tokens = [...BYTE_TO_CHAR].sort();
  const words = text.split(' ').map((word, i) => [...(i > 0 ? `Ġ${word}` : word)]);
  const merges: [string, string][] = [];
  while (tokens.length < vocabSize) {
    const best = mostFrequentPair(words, tokens);
    if (best === undefined) break;
    merges.push(best);
    if (!tokens.includes(best.join(''))) tokens.push(best.join(''));
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        if (word[i] === best[0] && word[i + 1] === best[1]) word.splice(i, 2, best.join(''));
      }
    }
  }
  return { tokens, merges };
}

function mostFrequentPair(words: string[][], tokens: string[]): [string, string] | undefined {
  const counts = new Map<string, { pair: [string, string]; count: number }>();
  for (const word of words) {
    for (let i = 0; i + 1 < word.length; i++) {
      const pair: [string, string] = [word[i], word[i + 1]];
      const entry = counts.get(pair.join(' ')) ?? { pair, count: 0 };
      entry.count++;
      counts.set(pair.join(' '), entry);
    }
  }
  const rank = ([left, right]: [string, string]) => tokens.indexOf(left) * 1e6 + tokens.indexOf(right);
  const ordered = [...counts.values()].sort((a, b) => b.count - a.count || rank(a.pair) - rank(b.pair));
  return ordered[0]?.count >= 2 ? ordered[0].pair : undefined;
}

describe('trainBpe', () => {
  it("learns what Hugging Face's BpeTrainer learns, and writes the same tokenizer.json", async () => {
    const vocabulary = await trainBpe([sample], { vocabSize: 1024, specialTokens });
    const written = JSON.parse(JSON.stringify(tokenizerJson(vocabulary)));
    expect(written).toEqual(readGolden('tokenizer.json'));
  });

  it('agrees with recounting every pair before every merge', async () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 9 });
    const text = fc.array(word, { minLength: 1, maxLength: 40 }).map((words) => words.join(' '));
    await fc.assert(
      fc.asyncProperty(text, fc.integer({ min: 256, max: 290 }), async (document, vocabSize) => {
        const fast = await trainBpe([document], { vocabSize, specialTokens: [] });
        expect(fast).toEqual(trainSlowly(document, vocabSize));
      }),
      { numRuns: 200 },
    );
  });

  it('counts over all documents, from any kind of iterable, and reports progress', async () => {
    async function* stream() {
      yield 'ab ab';
      yield 'ab cd';
    }
    const labels = new Set<string>();
    const options = {
      vocabSize: 258,
      specialTokens: ['<s>'],
      onProgress: (_d: number, _t: number, l: string) => labels.add(l),
    };
    const vocabulary = await trainBpe(stream(), options);
    expect(vocabulary.merges).toEqual([['a', 'b']]);
    expect(labels).toContain('counting words');
  });

  it('gives a merge that spells a special token its id, as Hugging Face does', async () => {
    const vocabulary = await trainBpe(['ab ab ab'], { vocabSize: 258, specialTokens: ['ab'] });
    expect(vocabulary.tokens.filter((token) => token === 'ab')).toHaveLength(1);
    expect(vocabulary.tokens.slice(257)).toEqual(['Ġab']);
    expect(vocabulary.merges).toEqual([
      ['a', 'b'],
      ['Ġ', 'ab'],
    ]);
  });

  it('stops when no pair is frequent enough', async () => {
    const rare = await trainBpe(['xyz'], { vocabSize: 1000, specialTokens: [] });
    expect(rare.merges).toEqual([]);
    const all = await trainBpe(['xyz'], { vocabSize: 1000, specialTokens: [], minFrequency: 1 });
    expect(all.merges).toHaveLength(2);
  });

  it('refuses a vocabulary without room for the bytes, and documents without text', async () => {
    await expect(trainBpe(['a'], { vocabSize: 260, specialTokens })).rejects.toThrow(/at least 261/);
    await expect(trainBpe(['a'], { vocabSize: Number.NaN, specialTokens })).rejects.toThrow(
      /NaN is too small/,
    );
    await expect(trainBpe(['', ''], { vocabSize: 300, specialTokens })).rejects.toThrow(/hold no text/);
  });
});

describe('saveTokenizer', () => {
  it('writes a folder that reads back with bos, eos and pad, and no chat template', async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-bpe-'));
    saveTokenizer(folder, await trainBpe([sample], { vocabSize: 400, specialTokens }));
    const tokenizer = Tokenizer.fromFolder(folder);
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId, tokenizer.vocabSize]).toEqual([0, 1, 2, 400]);
    expect(ChatTemplate.fromFolder(folder, tokenizer).own).toBe(false);
    expect(tokenizer.decode(tokenizer.encode(sample), { skipSpecialTokens: true })).toBe(sample);
    expect(fs.readdirSync(folder).sort()).toEqual(['tokenizer.json', 'tokenizer_config.json']);
    fs.rmSync(folder, { recursive: true });
  });
});
