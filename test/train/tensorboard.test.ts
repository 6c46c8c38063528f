import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { crc32c, record, TensorBoardWriter } from '../../src/train/tensorboard.js';

const golden = new URL('../goldens/tensorboard/events.out.tfevents', import.meta.url);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-events-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('crc32c', () => {
  it('gives the published values', () => {
    // RFC 3720 appendix B.4, and the check value of the CRC catalogue.
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(new Uint8Array(0))).toBe(0);
  });
});

describe('TensorBoardWriter', () => {
  it('frames a record as length, checksum, data, checksum', () => {
    const framed = Buffer.from(record(Buffer.from('abc')));
    expect(framed.length).toBe(8 + 4 + 3 + 4);
    expect(framed.readBigUInt64LE(0)).toBe(3n);
    expect(framed.toString('latin1', 12, 15)).toBe('abc');
  });

  it('writes the bytes that TensorBoard read back (scripts/check-tensorboard.py)', () => {
    const events = new TensorBoardWriter(folder, () => 1700000000);
    events.text(0, 'config', '# mini\n\nErdős');
    for (const step of [1, 2, 3]) {
      events.scalars(step, { 'loss/train': 8 / step, 'learning rate': 0.001 * step });
    }
    events.rewind(2);
    events.scalars(3, { 'loss/train': 1.5 });
    events.close();
    expect(readFileSync(events.file)).toEqual(readFileSync(golden));
  });

  it('never writes over an earlier file, and sorts after it', () => {
    const open = () => new TensorBoardWriter(folder, () => 1700000000);
    const files = [open(), open()];
    for (const file of files) file.close();
    expect(readdirSync(folder).sort()).toEqual(files.map(({ file }) => path.basename(file)));
  });

  it('names the folder that cannot be written', () => {
    expect(() => new TensorBoardWriter('/dev/null/runs')).toThrow(
      /cannot write \/dev\/null\/runs: .*not a folder/,
    );
  });
});
