import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { createPreTokenizer } from '../../src/text/pre-tokenizers.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { type Answers, goldenPath, readGolden } from './goldens.js';

const json = readGolden<Record<string, unknown>>('tokenizer.json');
const build = (changes: object = {}, config?: object) =>
  new Tokenizer(
    Buffer.from(JSON.stringify({ ...json, ...changes })),
    config && Buffer.from(JSON.stringify(config)),
  );

/** Every text must encode, decode, and decode id by id as Hugging Face has it. */
function expectAnswers(tokenizer: Tokenizer, golden: Answers, streams = true): void {
  for (const [i, text] of golden.texts.entries()) {
    const ids = golden.ids[i];
    const decoded = golden.decoded[i] ?? text;
    expect(Array.from(tokenizer.encode(text)), `ids of ${JSON.stringify(text)}`).toEqual(ids);
    expect(tokenizer.decode(ids), `text ${i}`).toBe(decoded);
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(golden.skipped[i] ?? decoded);
    if (streams) expect(streamed(tokenizer, ids)).toBe(decoded);
  }
}

function streamed(tokenizer: Tokenizer, ids: number[]): string {
  const stream = tokenizer.stream();
  return ids.map((id) => stream.push(id)).join('') + stream.end();
}

describe('parity with Hugging Face tokenizers', () => {
  it('gives the same ids and text for scripts, emoji, code, white space and random bytes', () => {
    expectAnswers(Tokenizer.fromFile(goldenPath('tokenizer.json')), readGolden<Answers>('ids.json'));
  });

  const cutting = readGolden<{
    texts: string[];
    cases: { name: string; config: never; pieces: string[][] }[];
  }>('pre_tokenizers.json');
  it.each(cutting.cases)('cuts text as the pre-tokenizer $name does', ({ config, pieces }) => {
    const preTokenizer = createPreTokenizer(config);
    for (const [i, text] of cutting.texts.entries()) {
      const ours = preTokenizer.cut(text, true).map((piece) => preTokenizer.spell(piece));
      expect(ours, JSON.stringify(text)).toEqual(pieces[i]);
    }
  });

  const pipelines = Object.entries(
    readGolden<Record<string, Answers & { changes: object }>>('pipelines.json'),
  );
  it.each(pipelines)('gives the same ids and text for the pipeline: %s', (_, golden) => {
    expectAnswers(build(golden.changes), golden);
  });
});

describe('Tokenizer', () => {
  const tokenizer = build(
    {},
    { bos_token: '<｜begin▁of▁sentence｜>', eos_token: { content: '<｜end▁of▁sentence｜>' } },
  );

  it('knows its size and special ids', () => {
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([
      1024,
      0,
      1,
      undefined,
    ]);
    expect(tokenizer.tokenToId('<｜User｜>')).toBe(3);
    expect(tokenizer.idToToken(3)).toBe('<｜User｜>');
    expect(tokenizer.sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  it('adds bos only when asked, once, and eos when the config says so', () => {
    const plain = Array.from(tokenizer.encode('Union', { addSpecialTokens: false }));
    expect(Array.from(tokenizer.encode('Union'))).toEqual([0, ...plain]);
    const config = {
      bos_token: '<｜begin▁of▁sentence｜>',
      eos_token: '<｜end▁of▁sentence｜>',
      add_bos_token: true,
    };
    expect(Array.from(build({}, config).encode('Union'))).toEqual([0, ...plain]);
    const withoutTemplate = build({ post_processor: null }, { ...config, add_eos_token: true });
    expect(Array.from(withoutTemplate.encode('Union'))).toEqual([0, ...plain, 1]);
  });

  const { changes } =
    readGolden<Record<string, { changes: object }>>('pipelines.json')['BPE with byte fallback'];
  it.each([
    ['byte-level', tokenizer],
    ['byte fallback', build(changes)],
  ])('streams whole characters only: %s', (_, streaming) => {
    const text = 'a 👨‍👩‍👧 中文 é';
    const stream = streaming.stream({ skipSpecialTokens: true });
    const parts = Array.from(streaming.encode(text), (id) => stream.push(id));
    expect(parts.some((part) => part === '')).toBe(true);
    for (const part of parts) expect(part).not.toContain('\ufffd');
    expect(parts.join('') + stream.end()).toBe(text);
  });

  it('gives the rest of an unfinished character at the end of a stream', () => {
    const [first] = tokenizer.encode('😀', { addSpecialTokens: false });
    const stream = tokenizer.stream();
    expect(stream.push(first)).toBe('');
    expect(stream.end()).toBe(tokenizer.decode([first]));
    expect(tokenizer.decode([first])).toBe('\ufffd');
  });

  it('leaves out ids that are not in the vocabulary, as Hugging Face does', () => {
    const ids = Array.from(tokenizer.encode('ok', { addSpecialTokens: false }));
    expect(tokenizer.decode([-1, ...ids, 5000])).toBe('ok');
    expect(tokenizer.decode([])).toBe('');
  });

  it('encodes a long text without a blank, and unpaired surrogates as U+FFFD', () => {
    const run = 'x'.repeat(200_000);
    expect(tokenizer.decode(tokenizer.encode(run), { skipSpecialTokens: true })).toBe(run);
    expect(tokenizer.decode(tokenizer.encode('a\ud800b'), { skipSpecialTokens: true })).toBe('a\ufffdb');
  });
});

describe('a malformed tokenizer', () => {
  const model = json.model as { vocab: Record<string, number>; merges: [string, string][] };
  const cases: [string, object, RegExp][] = [
    ['no model', { model: undefined }, /^tokenizer\.json: model: /],
    ['unknown model type', { model: { ...model, type: 'Magic' } }, /^tokenizer\.json: model\.type: /],
    ['vocabulary not a table', { model: { ...model, vocab: 3 } }, /^tokenizer\.json: model\.vocab: /],
    ['id not a number', { model: { ...model, vocab: { a: 'x' } } }, /^tokenizer\.json: model\.vocab\.a: /],
    [
      'id absurdly large',
      { model: { ...model, vocab: { a: 2 ** 40 } } },
      /^tokenizer\.json: model\.vocab\.a: /,
    ],
    ['id twice', { model: { ...model, vocab: { a: 1, b: 1 } } }, /model\.vocab: "a" and "b" share the id 1/],
    [
      'merge of unknown token',
      { model: { ...model, merges: [['§§', 'a']] } },
      /model\.merges\[0\]: the token "§§"/,
    ],
    ['merge of three', { model: { ...model, merges: ['a b c'] } }, /model\.merges\[0\]: expected a pair/],
    [
      'bad pattern',
      { pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } },
      /pre_tokenizer/,
    ],
    [
      'unknown pre-tokenizer',
      { pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'No' }] } },
      /pretokenizers\[0\]\.type/,
    ],
    ['length zero', { pre_tokenizer: { type: 'FixedLength', length: 0 } }, /pre_tokenizer\.length/],
    [
      'template token unknown',
      { post_processor: { type: 'BertProcessing', sep: ['?!', 1], cls: ['?!', 1] } },
      /"\?!" is not in/,
    ],
    [
      'template without the text',
      { post_processor: { type: 'TemplateProcessing', single: [] } },
      /post_processor: it must keep/,
    ],
    ['added token without content', { added_tokens: [{ id: 3 }] }, /added_tokens\[0\]\.content/],
  ];

  it.each(cases)('%s: one line that names file and field', (_, changes, message) => {
    expect(() => build(changes)).toThrow(UserError);
    expect(() => build(changes)).toThrow(message);
    try {
      build(changes);
    } catch (error) {
      expect((error as Error).message).not.toContain('\n');
    }
  });

  it('names the config field whose token does not exist', () => {
    expect(() => build({}, { eos_token: '</s>' })).toThrow(
      'tokenizer_config.json: eos_token: "</s>" is not in the vocabulary of tokenizer.json',
    );
  });

  it('names a missing file, and one that is not JSON', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-tokenizer-'));
    expect(() => Tokenizer.fromFolder(folder)).toThrow(/cannot read .*tokenizer\.json: no such file/);
    fs.writeFileSync(path.join(folder, 'tokenizer.json'), '{"model": ');
    expect(() => Tokenizer.fromFolder(folder)).toThrow(/tokenizer\.json: it is not valid JSON/);
    fs.rmSync(folder, { recursive: true });
  });
});
