import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { type CorpusSource, corpusDigest, corpusFiles, readDocuments } from '../../src/text/corpus.js';
import { makeFolder } from './folder.js';
import { goldenPath } from './goldens.js';

async function documentsOf(source: CorpusSource): Promise<string[]> {
  const documents: string[] = [];
  for await (const document of readDocuments(source)) documents.push(document);
  return documents;
}

const mixed = makeFolder({
  'b.txt': '\ufeffwhole file\nis one document',
  'a/z.jsonl':
    '{"text":"one","id":1}\r\n\n{"text":"two \u2028 with a line separator"}\n{"text":""}\n{"text":"no line end"}',
  'a/deep/y.txt': 'deep',
  'a/.hidden.txt': 'not this',
  'a/README.md': 'nor this',
  'empty.txt': '',
});

describe('reading documents', () => {
  it('walks folders in the order of names and takes each kind of file as its documents', async () => {
    expect(await documentsOf({ paths: [mixed] })).toEqual([
      'deep',
      'one',
      'two \u2028 with a line separator',
      'no line end',
      'whole file\nis one document',
    ]);
  });

  it('reads a file once, even when its folder is named as well', async () => {
    const file = path.join(mixed, 'b.txt');
    expect(corpusFiles({ paths: [file, mixed] })).toHaveLength(4);
    expect(await documentsOf({ paths: [file, file] })).toHaveLength(1);
  });

  it('reads lines longer than one read of the file', async () => {
    const long = 'é'.repeat(1_500_000);
    const folder = makeFolder({ 'x.jsonl': `${JSON.stringify({ text: long })}\n{"text":"after"}\n` });
    expect(await documentsOf({ paths: [folder] })).toEqual([long, 'after']);
  });

  it.each(['snappy', 'gzip', 'zstd', 'brotli', 'none'])(
    'reads Parquet compressed with %s',
    async (compression) => {
      const documents = await documentsOf({ paths: [goldenPath(`texts.${compression}.parquet`)] });
      expect(documents).toEqual(['first document', 'zweites – 文 😀', 'x'.repeat(300), 'last']);
    },
  );

  it('finds the bundled corpus: 233 addresses from Washington on', async () => {
    const documents = await documentsOf({ corpus: 'sotu' });
    expect(documents).toHaveLength(233);
    expect(documents[0]).toMatch(/^Fellow-Citizens of the Senate/);
    expect(documents.reduce((sum, text) => sum + text.length, 0)).toBeGreaterThan(10_000_000);
  });
});

describe('what is wrong with a corpus', () => {
  const bad = makeFolder({
    'a.csv': 'text',
    'no-text.jsonl': '{"text":"ok"}\n{"body":"x"}',
    'number.jsonl': '{"text":5}',
    'null.jsonl': 'null',
    'broken.jsonl': '{"text":"ok"}\n\n{"text":',
    'latin.txt': Buffer.from([0x41, 0xe9, 0x42]),
    'latin.jsonl': Buffer.from('{"text":"\xe9"}', 'latin1'),
    'fake.parquet': 'PAR1 and nothing more',
    'blank.txt': '',
    'nothing/readme.md': 'x',
  });
  const cases: [string, RegExp][] = [
    ['missing.txt', /cannot read .*missing\.txt: no such file or folder/],
    ['a.csv', /a\.csv as text: unknown extension "\.csv", known are \.txt, \.jsonl, \.parquet/],
    ['no-text.jsonl', /no-text\.jsonl:2: it has no field "text" that is a string/],
    ['number.jsonl', /number\.jsonl:1: it has no field "text"/],
    ['null.jsonl', /null\.jsonl:1: it has no field "text"/],
    ['broken.jsonl', /broken\.jsonl:3: it is not valid JSON/],
    ['latin.txt', /latin\.txt: it is not valid UTF-8/],
    ['latin.jsonl', /latin\.jsonl:1: it is not valid UTF-8/],
    ['fake.parquet', /cannot read .*fake\.parquet as Parquet/],
    ['blank.txt', /the corpus is empty: no text in .*blank\.txt/],
    ['nothing', /nothing holds no \.txt, \.jsonl, \.parquet files/],
  ];

  it.each(cases)('%s', async (name, message) => {
    const reading = documentsOf({ paths: [path.join(bad, name)] });
    await expect(reading).rejects.toThrow(UserError);
    await expect(documentsOf({ paths: [path.join(bad, name)] })).rejects.toThrow(message);
  });

  it('Parquet without the column, or with one of numbers', async () => {
    const read = (name: string) => documentsOf({ paths: [goldenPath(name)] });
    await expect(read('no-text.parquet')).rejects.toThrow(/no column "text"; its columns are meta, score/);
    await expect(read('numbers.parquet')).rejects.toThrow(/row 1: column "text" holds no string/);
  });

  it('an unknown name, and no path at all', async () => {
    await expect(documentsOf({ corpus: 'toString' })).rejects.toThrow(
      /unknown corpus "toString": known are sotu/,
    );
    await expect(documentsOf({ paths: [] })).rejects.toThrow(/name at least one file/);
  });
});

describe('corpusDigest', () => {
  it('depends on content, kind and order only', () => {
    const one = makeFolder({ 'a.txt': 'x', 'b.txt': 'y' });
    const moved = makeFolder({ 'sub/c.txt': 'x', 'sub/d.txt': 'y' });
    const digest = (folder: string) => corpusDigest({ paths: [folder] });
    expect(digest(moved)).toBe(digest(one));
    expect(digest(makeFolder({ 'a.txt': 'y', 'b.txt': 'x' }))).not.toBe(digest(one));
    expect(digest(makeFolder({ 'a.txt': 'xy' }))).not.toBe(digest(one));
    fs.writeFileSync(path.join(moved, 'sub/d.txt'), 'z');
    expect(digest(moved)).not.toBe(digest(one));
  });
});
