import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { prepareCorpus, splitDocuments } from '../../src/text/prepare.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { MemoryTokens, type TokenDocuments, TokenFile, writeTokenFile } from '../../src/text/tokens.js';
import { makeFolder } from './folder.js';
import { goldenPath } from './goldens.js';

const folder = makeFolder();
const origin = { vocabSize: 70_000, tokenizerSha256: 'aa', sourceSha256: 'bb' };
const documents = [[1, 2, 3], [], [4, 5, 6, 7], [69_999]].map((ids) => Int32Array.from(ids));

async function write(name: string, vocabSize = origin.vocabSize): Promise<string> {
  const file = path.join(folder, name);
  await writeTokenFile(file, documents, { ...origin, vocabSize });
  return file;
}

function readAll(file: TokenFile, start = 0, length = file.length): number[] {
  const out = new Int32Array(length);
  file.read(start, out);
  return [...out];
}

describe('token files', () => {
  it.each([
    [70_000, 'uint32', 4],
    [65_536, 'uint16', 2],
  ])('with a vocabulary of %i hold %s and read back in any range', async (vocabSize, dtype, width) => {
    const file = TokenFile.open(await write(`${dtype}.bin`, vocabSize));
    expect(file.header).toEqual({
      ...origin,
      format: 'fathom-tokens',
      version: 1,
      vocabSize,
      dtype,
      tokens: 8,
      documents: 4,
    });
    const last = vocabSize === 65_536 ? 69_999 - 65_536 : 69_999;
    expect(readAll(file)).toEqual([1, 2, 3, 4, 5, 6, 7, last]);
    expect(readAll(file, 2, 3)).toEqual([3, 4, 5]);
    expect([...file.documents().starts]).toEqual([0, 3, 3, 7]);
    expect([...file.documents().ends]).toEqual([3, 3, 7, 8]);
    const bytes = fs.readFileSync(file.file);
    expect(bytes.subarray(4096, 4096 + 2 * width)).toEqual(
      Buffer.from(width === 2 ? [1, 0, 2, 0] : [1, 0, 0, 0, 2, 0, 0, 0]),
    );
    file.close();
  });

  it('leave nothing behind when a document cannot be had, and keep the old file', async () => {
    const file = await write('kept.bin');
    const before = fs.readFileSync(file);
    function* failing() {
      yield documents[0];
      throw new UserError('no more text');
    }
    await expect(writeTokenFile(file, failing(), origin)).rejects.toThrow('no more text');
    expect(fs.readFileSync(file)).toEqual(before);
    expect(fs.readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('that are damaged are named, with what is wrong', async () => {
    const whole = fs.readFileSync(await write('whole.bin'));
    const open = (bytes: Buffer) => {
      const file = path.join(folder, 'damaged.bin');
      fs.writeFileSync(file, bytes);
      return () => readAll(TokenFile.open(file));
    };
    const edited = (at: number, bytes: number[]) => {
      const copy = Buffer.from(whole);
      copy.set(bytes, at);
      return copy;
    };
    expect(open(whole)).not.toThrow();
    expect(open(whole.subarray(0, 100))).toThrow(/damaged\.bin is not a whole token file: it has no header/);
    expect(open(whole.subarray(0, -1))).toThrow(/it has 4159 bytes instead of 4160/);
    expect(open(edited(0, [0]))).toThrow(/its header is no JSON/);
    expect(
      open(Buffer.from(whole.toString('latin1').replace('"version":1', '"version":2'), 'latin1')),
    ).toThrow(/header field version/);
    expect(open(edited(4096, [255, 255, 255, 255]))).toThrow(/id -1 at 0 is outside the vocabulary of 70000/);
    expect(open(edited(4128, [200]))).toThrow(/document 0 ends at 200, out of order/);
    expect(() => TokenFile.open(path.join(folder, 'none.bin'))).toThrow(
      /cannot read .*none\.bin: no such file/,
    );
  });
});

function inMemory(lengths: number[]): TokenDocuments {
  const ends = Float64Array.from(lengths, (_, i) => lengths.slice(0, i + 1).reduce((sum, n) => sum + n, 0));
  const starts = ends.map((end, i) => end - lengths[i]);
  const ids = Int32Array.from({ length: ends.at(-1) ?? 0 }, (_, i) => i);
  return { source: new MemoryTokens(ids, 1000), starts, ends };
}

describe('splitDocuments', () => {
  const ten = inMemory(new Array<number>(10).fill(3));

  it('holds out the nearest share, the same for the same seed', () => {
    const { train, validation } = splitDocuments(ten, 0.25, 7);
    expect([train.starts.length, validation.starts.length]).toEqual([7, 3]);
    expect([...train.starts, ...validation.starts].sort((a, b) => a - b)).toEqual([...ten.starts]);
    expect(splitDocuments(ten, 0.25, 7).validation.starts).toEqual(validation.starts);
    const others = [8, 9, 10].map((seed) => splitDocuments(ten, 0.25, seed).validation.starts.join());
    expect(others.some((starts) => starts !== validation.starts.join())).toBe(true);
  });

  it('leaves no side empty', () => {
    expect(splitDocuments(ten, 1e-9, 0).validation.starts.length).toBe(1);
    expect(splitDocuments(ten, 0.999, 0).train.starts.length).toBe(1);
    const two = splitDocuments(inMemory([1, 1]), 0.01, 0);
    expect([two.train.starts.length, two.validation.starts.length]).toEqual([1, 1]);
  });

  it('cuts a single document by position', () => {
    const { train, validation } = splitDocuments(inMemory([100]), 0.1, 0);
    expect([train.starts[0], train.ends[0], validation.starts[0], validation.ends[0]]).toEqual([
      0, 90, 90, 100,
    ]);
  });

  it.each([0, 1, -0.1, Number.NaN])('refuses the fraction %f', (fraction) => {
    expect(() => splitDocuments(ten, fraction, 0)).toThrow(/validation fraction .*between 0 and 1/);
  });
});

describe('prepareCorpus', () => {
  const tokenizer = Tokenizer.fromFile(goldenPath('tokenizer.json'));
  const text = makeFolder({ 'a.txt': 'The union', 'b.txt': 'of states', 'c.txt': 'we the people' });
  const request = (cacheDir: string) => ({
    source: { paths: [text] },
    tokenizer,
    cacheDir,
    validationFraction: 0.3,
    seed: 1,
  });

  it('tokenises every document, reports progress and splits', async () => {
    const progress: number[] = [];
    const onProgress = (done: number, total: number) => progress.push(done / total);
    const corpus = await prepareCorpus({ ...request(path.join(makeFolder(), 'new')), onProgress });
    expect(progress.at(-1)).toBe(1);
    const all = corpus.file.documents();
    const texts = Array.from(all.starts, (start, i) =>
      tokenizer.decode(readAll(corpus.file, start, all.ends[i] - start)),
    );
    expect(texts).toEqual(['The union', 'of states', 'we the people']);
    expect([corpus.train.starts.length, corpus.validation.starts.length]).toEqual([2, 1]);
    corpus.close();
  });

  it('reuses its file until text or tokenizer change, and makes a damaged one again', async () => {
    const cacheDir = makeFolder();
    const again = async (changes: object = {}) => {
      const corpus = await prepareCorpus({ ...request(cacheDir), ...changes });
      corpus.close();
      return corpus;
    };
    const first = await again();
    expect(first.reused).toBe(false);
    expect((await again()).reused).toBe(true);
    expect(
      (await again({ source: { paths: [path.join(text, 'a.txt'), path.join(text, 'b.txt')] } })).reused,
    ).toBe(false);
    const other = new Tokenizer(
      Buffer.concat([fs.readFileSync(goldenPath('tokenizer.json')), Buffer.from(' ')]),
    );
    expect((await again({ tokenizer: other })).reused).toBe(false);
    const others = fs.readdirSync(cacheDir).filter((name) => !first.file.file.endsWith(name));
    expect(others).toHaveLength(2);
    for (const other of others) {
      fs.copyFileSync(path.join(cacheDir, other), first.file.file);
      expect((await again()).reused, other).toBe(false);
    }
    fs.truncateSync(first.file.file, 5000);
    expect((await again()).reused).toBe(false);
    expect((await again()).reused).toBe(true);
  });

  it('names the folder that it cannot write', async () => {
    const cacheDir = path.join(makeFolder({ file: 'x' }), 'file');
    await expect(prepareCorpus(request(cacheDir))).rejects.toThrow(
      /cannot write .*tokens-.*: (part of its path|something)/,
    );
  });
});
