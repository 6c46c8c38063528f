/**
 * A tokenised corpus on disk, read in ranges and never as a whole.
 *
 * File: a block of 4096 bytes that holds a line of JSON (`TokenFileHeader`), padded with spaces; the ids of all
 * documents one after another, little endian, two bytes each or four; then, at the next multiple of eight bytes, the index
 * where each document ends as 64-bit integers. Ids start on a page, so that the file can be mapped.
 *
 * Node has no mmap. `TokenFile` reads with positioned calls and leaves caching to the operating system's page cache, which is
 * where a mapping would keep the pages too. Whatever else implements `TokenSource` (memory; a mapping by the
 * native addon) can take its place.
 */
import fs from 'node:fs';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { readFully, withFileErrors, writeFileAtomically, writeFully } from '../files.js';

/** A run of token ids with random access. */
export interface TokenSource {
  /** Ids are below this. */
  readonly vocabSize: number;
  /** Number of ids. */
  readonly length: number;
  /** Fills `out` with the ids from `start` on; the range must lie inside. */
  read(start: number, out: Int32Array): void;
}

/** Documents of a source, in order: document i is the ids [starts[i], ends[i]). */
export interface TokenDocuments {
  source: TokenSource;
  starts: Float64Array;
  ends: Float64Array;
}

/** Ids held in memory. */
export class MemoryTokens implements TokenSource {
  constructor(
    readonly ids: Int32Array,
    readonly vocabSize: number,
  ) {}

  get length(): number {
    return this.ids.length;
  }

  read(start: number, out: Int32Array): void {
    out.set(this.ids.subarray(start, start + out.length));
  }
}

const HEADER_BYTES = 4096;
const headerSchema = z.object({
  format: z.literal('fathom-tokens'),
  version: z.literal(1),
  dtype: z.enum(['uint16', 'uint32']),
  vocabSize: z.number().int().min(1),
  tokens: z.number().int().min(0),
  documents: z.number().int().min(0),
  /** SHA-256 of tokenizer.json. */
  tokenizerSha256: z.string(),
  /** `corpusDigest` of the text. */
  sourceSha256: z.string(),
});

/** What the first block of a token file says. */
export type TokenFileHeader = z.infer<typeof headerSchema>;

/** What the writer of a token file has to know in advance. */
export type TokenFileOrigin = Pick<TokenFileHeader, 'vocabSize' | 'tokenizerSha256' | 'sourceSha256'>;

/** Writes documents as they come; the file appears when all are written, or not at all. Returns its header. */
export async function writeTokenFile(
  file: string,
  documents: AsyncIterable<Int32Array> | Iterable<Int32Array>,
  origin: TokenFileOrigin,
): Promise<TokenFileHeader> {
  const dtype = origin.vocabSize <= 0x10000 ? 'uint16' : 'uint32';
  return writeFileAtomically(file, async (descriptor) => {
    const ends: bigint[] = [];
    let tokens = 0;
    for await (const ids of documents) {
      const packed = dtype === 'uint16' ? new Uint16Array(ids) : new Uint32Array(ids);
      writeFully(descriptor, bytesOf(packed), HEADER_BYTES + tokens * packed.BYTES_PER_ELEMENT);
      tokens += ids.length;
      ends.push(BigInt(tokens));
    }
    const header: TokenFileHeader = {
      format: 'fathom-tokens',
      version: 1,
      dtype,
      ...origin,
      tokens,
      documents: ends.length,
    };
    writeFully(descriptor, bytesOf(BigUint64Array.from(ends)), endsOffset(header));
    writeFully(descriptor, Buffer.from(`${JSON.stringify(header).padEnd(HEADER_BYTES - 1)}\n`), 0);
    return header;
  });
}

/** A token file opened for reading. */
export class TokenFile implements TokenSource {
  private scratch = new ArrayBuffer(0);

  private constructor(
    readonly file: string,
    readonly header: TokenFileHeader,
    private readonly descriptor: number,
    /** Where each document ends, in ids. */
    private readonly documentEnds: Float64Array,
  ) {}

  /** Opens and checks a file. A UserError when it is missing, no token file, of another version, or cut short. */
  static open(file: string): TokenFile {
    const descriptor = withFileErrors('read', file, () => fs.openSync(file, 'r'));
    try {
      const header = readHeader(descriptor, file);
      return new TokenFile(file, header, descriptor, readEnds(descriptor, header, file));
    } catch (error) {
      fs.closeSync(descriptor);
      throw error;
    }
  }

  get vocabSize(): number {
    return this.header.vocabSize;
  }

  get length(): number {
    return this.header.tokens;
  }

  /** All documents of the file, in the order in which they were written. */
  documents(): TokenDocuments {
    const starts = new Float64Array(this.documentEnds.length);
    starts.set(this.documentEnds.subarray(0, -1), 1);
    return { source: this, starts, ends: this.documentEnds };
  }

  read(start: number, out: Int32Array): void {
    const width = widthOf(this.header);
    const bytes = out.length * width;
    if (this.scratch.byteLength < bytes) this.scratch = new ArrayBuffer(bytes);
    if (!readFully(this.descriptor, new Uint8Array(this.scratch, 0, bytes), HEADER_BYTES + start * width)) {
      throw damaged(this.file, `it ends inside the ids ${start} to ${start + out.length}`);
    }
    out.set(
      width === 2
        ? new Uint16Array(this.scratch, 0, out.length)
        : new Uint32Array(this.scratch, 0, out.length),
    );
    const wrong = out.findIndex((id) => id < 0 || id >= this.vocabSize);
    if (wrong >= 0) {
      throw damaged(
        this.file,
        `id ${out[wrong]} at ${start + wrong} is outside the vocabulary of ${this.vocabSize}`,
      );
    }
  }

  close(): void {
    fs.closeSync(this.descriptor);
  }
}

/** Typed arrays are little endian on every machine that Node supports in 64 bits save s390x, which is not. */
function bytesOf(array: Uint16Array | Uint32Array | BigUint64Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function widthOf(header: TokenFileHeader): 2 | 4 {
  return header.dtype === 'uint16' ? 2 : 4;
}

function endsOffset(header: TokenFileHeader): number {
  return HEADER_BYTES + Math.ceil((header.tokens * widthOf(header)) / 8) * 8;
}

function readHeader(descriptor: number, file: string): TokenFileHeader {
  const block = Buffer.alloc(HEADER_BYTES);
  if (!readFully(descriptor, block, 0)) throw damaged(file, 'it has no header');
  let json: unknown;
  try {
    json = JSON.parse(block.toString('utf8'));
  } catch {
    throw damaged(file, 'its header is no JSON');
  }
  const result = headerSchema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw damaged(file, `header field ${issue.path.join('.') || '(all)'}: ${issue.message}`);
}

function readEnds(descriptor: number, header: TokenFileHeader, file: string): Float64Array {
  const expected = endsOffset(header) + header.documents * 8;
  const { size } = fs.fstatSync(descriptor);
  if (size !== expected) throw damaged(file, `it has ${size} bytes instead of ${expected}`);
  const ends = new BigUint64Array(header.documents);
  readFully(descriptor, bytesOf(ends), endsOffset(header));
  const numbers = Float64Array.from(ends, Number);
  const wrong = numbers.findIndex((end, i) => end < (i > 0 ? numbers[i - 1] : 0) || end > header.tokens);
  if (wrong >= 0) throw damaged(file, `document ${wrong} ends at ${numbers[wrong]}, out of order`);
  return numbers;
}

function damaged(file: string, what: string): UserError {
  return new UserError(`${file} is not a whole token file: ${what}; delete it and it will be made again`);
}
