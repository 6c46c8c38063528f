import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../src/errors.js';
import { readJsonFile, writeFileAtomicallySync, writeFully } from '../src/files.js';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-files-'));
afterAll(() => fs.rmSync(root, { recursive: true }));

const put = (file: string, text: string) =>
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(text), 0));

describe('writing a file', () => {
  it('makes its folder and replaces what was there', () => {
    const file = path.join(root, 'a/b/c.txt');
    put(file, 'first');
    put(file, 'second');
    expect(fs.readFileSync(file, 'utf8')).toBe('second');
    expect(fs.readdirSync(path.dirname(file))).toEqual(['c.txt']);
  });

  // /dev/full fails every write with ENOSPC.
  it.skipIf(!fs.existsSync('/dev/full'))('keeps the old file when the disk is full, and says so', () => {
    const file = path.join(root, 'full.txt');
    put(file, 'old');
    const full = () =>
      writeFileAtomicallySync(file, (descriptor) => {
        writeFully(descriptor, Buffer.from('half of'), 0);
        fs.writeFileSync('/dev/full', 'the new');
      });
    expect(full).toThrow(UserError);
    expect(full).toThrow(`cannot write ${file}: no space left on the disk`);
    expect(fs.readFileSync(file, 'utf8')).toBe('old');
    expect(fs.readdirSync(root).filter((name) => name.startsWith('full'))).toEqual(['full.txt']);
  });

  it('names a path that leads through a file', () => {
    put(path.join(root, 'file'), '');
    expect(() => put(path.join(root, 'file/below.txt'), '')).toThrow(/cannot write .*below\.txt/);
  });
});

it('JSON that is none is an error that names the file', () => {
  const file = path.join(root, 'bad.json');
  put(file, '{"a": ');
  expect(() => readJsonFile(file)).toThrow(`${file} is not valid JSON`);
});
