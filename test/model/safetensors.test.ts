import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import {
  INDEX_FILE,
  SafetensorsReader,
  type StoredType,
  type TensorToWrite,
  writeSafetensors,
  writeSafetensorsFolder,
} from '../../src/model/safetensors.js';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-safetensors-'));
afterAll(() => fs.rmSync(root, { recursive: true }));

/** Bytes of a file with this header (an object, or text as it is) and `data` bytes of data, counting up. */
function fileBytes(header: unknown, data: number): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([prefix, json, Buffer.from(Array.from({ length: data }, (_, i) => i % 256))]);
}

function put(name: string, bytes: Uint8Array): string {
  const file = path.join(root, name);
  fs.writeFileSync(file, bytes);
  return file;
}

const f32 = (begin: number, shape: number[]) => {
  const bytes = 4 * shape.reduce((n, d) => n * d, 1);
  return { dtype: 'F32', shape, data_offsets: [begin, begin + bytes] };
};

describe('reading', () => {
  it.each<[string, unknown, number, RegExp]>([
    ['a header that is not JSON', '{"a": ', 0, /header is not JSON/],
    ['a header that is a list', [1], 0, /not a JSON object/],
    [
      'a name that comes twice',
      `{"a":${JSON.stringify(f32(0, [1]))},"a":${JSON.stringify(f32(0, [1]))}}`,
      4,
      /names a twice/,
    ],
    [
      'an unknown dtype',
      { a: { dtype: 'F4', shape: [1], data_offsets: [0, 4] } },
      4,
      /tensor a has dtype "F4"; supported/,
    ],
    [
      'a dtype that is a property of objects',
      { a: { ...f32(0, [1]), dtype: 'toString' } },
      4,
      /has dtype "toString"/,
    ],
    [
      'a negative size',
      { a: { dtype: 'F32', shape: [-1], data_offsets: [0, 4] } },
      4,
      /tensor a has shape \[-1\]/,
    ],
    ['a size beyond integers', { a: { dtype: 'F32', shape: [1e300], data_offsets: [0, 4] } }, 4, /has shape/],
    [
      'sizes whose product is huge',
      { a: { dtype: 'F32', shape: [2 ** 40, 2 ** 40], data_offsets: [0, 4] } },
      4,
      /needs .* bytes but has 4/,
    ],
    [
      'offsets in reverse',
      { a: { dtype: 'F32', shape: [1], data_offsets: [4, 0] } },
      4,
      /not \[begin, end\]/,
    ],
    [
      'bytes that do not fit the shape',
      { a: { dtype: 'F32', shape: [2], data_offsets: [0, 4] } },
      4,
      /needs 8 bytes but has 4/,
    ],
    ['overlapping tensors', { a: f32(0, [2]), b: f32(4, [2]) }, 12, /tensor b overlaps/],
    ['a gap', { a: f32(0, [1]), b: f32(8, [1]) }, 12, /gap before tensor b/],
    ['a tensor beyond the end', { a: f32(0, [100]) }, 4, /tensor a reaches to byte .* cut short/],
    ['bytes after the last tensor', { a: f32(0, [1]) }, 5, /1 bytes follow the last tensor/],
    ['a tensor that is no object', { a: 3 }, 0, /tensor a has no description/],
  ])('refuses %s', (_what, header, data, message) => {
    const file = put('bad.safetensors', fileBytes(header, data));
    expect(() => SafetensorsReader.open(file)).toThrow(UserError);
    expect(() => SafetensorsReader.open(file)).toThrow(message);
    expect(() => SafetensorsReader.open(file)).toThrow(file);
  });

  it('refuses a header length beyond the end without allocating it', () => {
    const bytes = fileBytes({ a: f32(0, [1]) }, 4);
    bytes.writeBigUInt64LE(2n ** 63n, 0);
    expect(() => SafetensorsReader.open(put('long.safetensors', bytes))).toThrow(/reaches beyond its end/);
    expect(() => SafetensorsReader.open(put('short.safetensors', bytes.subarray(0, 5)))).toThrow(/too few/);
  });

  it('survives deep nesting and very long names', () => {
    const nested = put('nested.safetensors', fileBytes(`${'['.repeat(1e6)}`, 0));
    expect(() => SafetensorsReader.open(nested)).toThrow(/not JSON/);
    const name = 'x'.repeat(5e6);
    const long = put('names.safetensors', fileBytes({ [name]: f32(0, [1]) }, 4));
    expect(SafetensorsReader.open(long).entry(name).bytes).toBe(4);
  });

  it('reads names that are special in JavaScript, scalars and empty tensors', () => {
    const header = `{"__proto__":${JSON.stringify(f32(0, []))},"empty":${JSON.stringify(f32(4, [0, 7]))}}`;
    const reader = SafetensorsReader.open(put('special.safetensors', fileBytes(header, 4)));
    expect([...reader.tensors.keys()]).toEqual(['__proto__', 'empty']);
    expect(reader.read('__proto__')).toEqual(Uint8Array.of(0, 1, 2, 3));
    expect(reader.readFloats('empty')).toHaveLength(0);
    reader.close();
  });

  // Codes and values: IEEE 754 binary16, BF16, OCP E4M3 and E5M2.
  it.each<[StoredType, number[], number[]]>([
    ['F16', [0x00, 0x3c, 0x01, 0x00, 0xff, 0x7b, 0x00, 0xfc], [1, 2 ** -24, 65504, Number.NEGATIVE_INFINITY]],
    ['BF16', [0x80, 0x3f, 0x00, 0xc0], [1, -2]],
    ['F8_E4M3', [0x38, 0x7e, 0x01], [1, 448, 2 ** -9]],
    ['F8_E5M2', [0x3c, 0xfb], [1, -57344]],
    ['F64', [0, 0, 0, 0, 0, 0, 0xf8, 0x3f], [1.5]],
  ])('decodes %s', (dtype, bytes, values) => {
    const file = path.join(root, `${dtype}.safetensors`);
    writeSafetensors(file, [
      { name: 't', dtype, shape: [values.length], data: () => Uint8Array.from(bytes) },
    ]);
    const reader = SafetensorsReader.open(file);
    expect([...reader.readFloats('t')]).toEqual(values);
    expect(() => reader.readIntegers('t')).toThrow(/integer type is needed/);
    reader.close();
  });

  it('reads integers and refuses those beyond 32 bits', () => {
    const file = path.join(root, 'int.safetensors');
    const wide = new Uint8Array(BigInt64Array.of(-5n, 2n ** 31n).buffer);
    writeSafetensors(file, [
      { name: 'small', dtype: 'I64', shape: [1], data: () => wide.subarray(0, 8) },
      { name: 'wide', dtype: 'I64', shape: [2], data: () => wide },
      { name: 'flags', dtype: 'BOOL', shape: [2], data: () => Uint8Array.of(0, 1) },
    ]);
    const reader = SafetensorsReader.open(file);
    expect([...reader.readIntegers('small')]).toEqual([-5]);
    expect([...reader.readIntegers('flags')]).toEqual([0, 1]);
    expect(() => reader.readIntegers('wide')).toThrow(/holds 2147483648, beyond 32 bits/);
    expect(() => reader.readFloats('flags')).toThrow(/floating type is needed/);
    expect(() => reader.read('none')).toThrow(/has no tensor none/);
    reader.close();
  });

  it('names what a folder lacks', () => {
    expect(() => SafetensorsReader.open(path.join(root, 'nowhere'))).toThrow(
      /cannot read .*nowhere: no such file/,
    );
    expect(() => SafetensorsReader.open(root)).toThrow(/neither model.safetensors nor/);
  });
});

describe('writing', () => {
  const counting = (name: string, dtype: StoredType, n: number): TensorToWrite => ({
    name,
    dtype,
    shape: [n],
    data: () => Uint8Array.from({ length: n * (dtype === 'F32' ? 4 : 2) }, (_, i) => i % 251),
  });

  it('aligns the data and puts wide types first', () => {
    const file = path.join(root, 'aligned.safetensors');
    writeSafetensors(file, [counting('b', 'BF16', 3), counting('f', 'F32', 2)]);
    const reader = SafetensorsReader.open(file);
    expect(reader.entry('f').position % 64).toBe(0);
    expect(reader.entry('b').position).toBe(reader.entry('f').position + 8);
    expect(fs.readFileSync(file, 'latin1').slice(8)).toMatch(/^\{"__metadata__":\{"format":"pt"\},/);
    reader.close();
  });

  it('leaves the old file alone when a tensor cannot be produced', () => {
    const folder = fs.mkdtempSync(path.join(root, 'atomic-'));
    const file = path.join(folder, 'x.safetensors');
    writeSafetensors(file, [counting('a', 'F32', 2)]);
    const before = fs.readFileSync(file);
    const broken: TensorToWrite = {
      ...counting('b', 'F32', 1),
      data: () => {
        throw new Error('no more');
      },
    };
    expect(() => writeSafetensors(file, [counting('a', 'F32', 4), broken])).toThrow('no more');
    expect(fs.readdirSync(folder)).toEqual(['x.safetensors']);
    expect(fs.readFileSync(file)).toEqual(before);
  });

  it('says why a folder cannot be written', () => {
    const blocked = put('plain-file', Uint8Array.of(1));
    expect(() => writeSafetensors(path.join(blocked, 'x.safetensors'), [])).toThrow(UserError);
  });

  it('shards by size and removes what an earlier save left', () => {
    const folder = path.join(root, 'shards');
    const tensors = [
      counting('a', 'F32', 10),
      counting('b', 'F32', 10),
      counting('big', 'F32', 100),
      counting('c', 'BF16', 1),
    ];
    const files = writeSafetensorsFolder(folder, tensors, 90);
    expect(files).toEqual([1, 2, 3].map((n) => `model-0000${n}-of-00003.safetensors`).concat(INDEX_FILE));
    expect(JSON.parse(fs.readFileSync(path.join(folder, INDEX_FILE), 'utf8'))).toEqual({
      metadata: { total_size: 482 },
      weight_map: { a: files[0], b: files[0], big: files[1], c: files[2] },
    });
    const reader = SafetensorsReader.open(folder);
    for (const { name, data } of tensors) expect(reader.read(name)).toEqual(data());
    reader.close();
    expect(writeSafetensorsFolder(folder, tensors)).toEqual(['model.safetensors']);
    expect(fs.readdirSync(folder)).toEqual(['model.safetensors']);
  });

  it('names the shard that is missing or lacks a tensor', () => {
    const folder = path.join(root, 'torn');
    writeSafetensorsFolder(folder, [counting('a', 'F32', 10), counting('b', 'F32', 10)], 40);
    const second = path.join(folder, 'model-00002-of-00002.safetensors');
    writeSafetensors(second, [counting('other', 'F32', 1)]);
    expect(() => SafetensorsReader.open(folder)).toThrow(`${second} lacks tensor b`);
    fs.rmSync(second);
    expect(() => SafetensorsReader.open(folder)).toThrow(`cannot read ${second}: no such file`);
    fs.writeFileSync(path.join(folder, INDEX_FILE), '{"weight_map": {"a": "../a.safetensors"}}');
    expect(() => SafetensorsReader.open(folder)).toThrow(/maps a to "\.\.\/a\.safetensors"/);
  });
});

describe('damaged files', () => {
  const intact = fileBytes(
    {
      __metadata__: { format: 'pt' },
      a: f32(0, [2, 3]),
      b: { dtype: 'BF16', shape: [5], data_offsets: [24, 34] },
    },
    34,
  );

  /** Opens a damaged file: either a UserError, or exactly the bytes that the file holds. */
  function checkSafe(bytes: Uint8Array): void {
    const file = put('fuzz.safetensors', bytes);
    try {
      const reader = SafetensorsReader.open(file);
      for (const { name, position, bytes: size } of reader.tensors.values()) {
        expect(Buffer.from(reader.read(name))).toEqual(
          Buffer.from(bytes.subarray(position, position + size)),
        );
      }
      reader.close();
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      expect(error.message).not.toContain('\n');
    }
  }

  it('never crash the reader, whichever bytes change', () => {
    const change = fc.record({ at: fc.nat(intact.length - 1), to: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = Buffer.from(intact);
        for (const { at, to } of changes) bytes[at] = to;
        checkSafe(bytes);
      }),
      { numRuns: 1000 },
    );
  });

  it('never crash the reader, wherever they end', () => {
    for (let length = 0; length <= intact.length; length++) checkSafe(intact.subarray(0, length));
  });

  it('never crash the reader, whatever the header says', () => {
    const number = fc.oneof(fc.nat(40), fc.maxSafeInteger(), fc.double());
    const entry = fc.record(
      {
        dtype: fc.constantFrom('F32', 'BF16', 'U8', 'F8_E4M3', 'Q4', null),
        shape: fc.oneof(
          fc.array(fc.nat(6), { maxLength: 3 }),
          fc.array(number, { maxLength: 3 }),
          fc.jsonValue(),
        ),
        data_offsets: fc.oneof(fc.tuple(fc.nat(34), fc.nat(34)), fc.array(number, { maxLength: 3 })),
      },
      { requiredKeys: [] },
    );
    const header = fc.dictionary(
      fc.string({ maxLength: 4 }),
      fc.oneof({ weight: 5, arbitrary: entry }, fc.jsonValue()),
    );
    fc.assert(
      fc.property(header, fc.nat(34), (json, data) => checkSafe(fileBytes(json, data))),
      { numRuns: 500 },
    );
  });
});
