import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answers, goldenPath, readGolden } from '../text/goldens.js';
import { fathom, fathomJson } from './run.js';

const TOKENIZER = goldenPath('tokenizer.json');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-tokenizer-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fathom tokenizer train', () => {
  const data = ['--data', goldenPath('sample.txt')];

  it('writes a tokenizer that encode and decode take', async () => {
    const out = path.join(folder, 'trained');
    const trained = await fathomJson(['tokenizer', 'train', ...data, '--vocab-size', '400', '--out', out]);
    // 5 special tokens and 256 bytes are there without a merge.
    expect(trained).toEqual({ out, vocabSize: 400, merges: 400 - 261, seconds: expect.any(Number) });
    const { ids } = await fathomJson(['tokenizer', 'encode', out, '--text', 'Straße']);
    const decoded = await fathomJson(['tokenizer', 'decode', out, '--tokens', String(ids), '--no-special']);
    expect(decoded.text).toBe('Straße');
  });

  it('says what it did, with progress on standard error', async () => {
    const out = path.join(folder, 'all');
    const { stdout, stderr } = await fathom([
      'tokenizer',
      'train',
      ...data,
      '--vocab-size',
      '100000',
      '--out',
      out,
    ]);
    expect(stdout).toMatch(
      /^\d+ tokens, \d+ merges \(100000 asked for; no more pairs .*\) in .*; written to .*all\n$/,
    );
    expect(stderr).toMatch(/^counting words 1\nlearning merges \d+\/100000\n/);
  });

  it('refuses numbers that make no sense, with exit code 2', async () => {
    for (const size of ['-3', 'NaN', '4096.5', '1e3', '']) {
      const { code, stderr } = await fathom(['tokenizer', 'train', '--out', folder, '--vocab-size', size]);
      expect([code, stderr]).toEqual([
        2,
        `fathom: option '--vocab-size <n>' argument '${size}' is invalid. It must be an integer of at least 1.\n`,
      ]);
    }
    const small = await fathom(['tokenizer', 'train', ...data, '--out', folder, '--vocab-size', '100']);
    expect([small.code, small.stderr]).toEqual([
      1,
      expect.stringContaining('vocabulary size 100 is too small'),
    ]);
  });

  it.runIf(process.platform === 'linux')('names a folder that cannot be made', async () => {
    const { code, stderr } = await fathom(['tokenizer', 'train', ...data, '--out', '/proc/fathom']);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/\nfathom: cannot write \/proc\/fathom\/.*: no such file or folder\n$/),
    ]);
  });
});

describe('fathom tokenizer encode', () => {
  it('gives the ids of Hugging Face, from an option, a file and standard input', async () => {
    const { texts, ids } = readGolden<Answers>('ids.json');
    const file = path.join(folder, 'text.txt');
    writeFileSync(file, texts[1]!);
    expect((await fathomJson(['tokenizer', 'encode', TOKENIZER, '--text', texts[1]!])).ids).toEqual(ids[1]);
    expect((await fathomJson(['tokenizer', 'encode', TOKENIZER, '--file', file])).ids).toEqual(ids[1]);
    expect((await fathomJson(['tokenizer', 'encode', TOKENIZER], texts[1])).ids).toEqual(ids[1]);
  });

  it('names each token, and leaves out special ones on request', async () => {
    const whole = await fathomJson(['tokenizer', 'encode', TOKENIZER, '--text', 'the']);
    const plain = await fathomJson(['tokenizer', 'encode', TOKENIZER, '--text', 'the', '--no-special']);
    expect(whole.tokens).toEqual(['<｜begin▁of▁sentence｜>', ...(plain.tokens as string[])]);
    expect((plain.tokens as string[]).join('')).toBe('the');
  });

  it('refuses two sources of text', async () => {
    const { code, stderr } = await fathom(['tokenizer', 'encode', TOKENIZER, '--text', 'a', '--file', 'b']);
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/'--text <text>' cannot be used with .*'--file <path>'/),
    ]);
  });
});

describe('fathom tokenizer decode', () => {
  it('takes back what encode printed', async () => {
    const text = 'Zwölf Boxkämpfer — 拳 🥊\n\tjagen';
    const { stdout } = await fathom(['tokenizer', 'encode', TOKENIZER, '--text', text]);
    expect(await fathomJson(['tokenizer', 'decode', TOKENIZER, '--no-special'], stdout)).toEqual({ text });
    const ids = stdout.trim().replaceAll(' ', ',');
    expect((await fathom(['tokenizer', 'decode', TOKENIZER, '--tokens', ids])).stdout).toBe(
      `<｜begin▁of▁sentence｜>${text}\n`,
    );
  });

  it('names an id that is none, or none of this vocabulary', async () => {
    const answers = await Promise.all(
      ['1,two', '-3', '99999999', ''].map((ids) =>
        fathom(['tokenizer', 'decode', TOKENIZER, '--tokens', ids]),
      ),
    );
    expect(answers.map(({ code }) => code)).toEqual([2, 2, 2, 2]);
    expect(answers.map(({ stderr }) => stderr)).toEqual([
      expect.stringContaining('"two" is no token id'),
      expect.stringContaining('"-3" is no token id'),
      expect.stringContaining('token id 99999999 is not in the vocabulary of'),
      expect.stringContaining('holds no token id'),
    ]);
  });
});
