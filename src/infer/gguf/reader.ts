import fs from 'node:fs';
import { UserError } from '../../errors.js';
import { readFully, withFileErrors } from '../../files.js';
import {
  ALIGNMENT,
  MAGIC,
  padded,
  type ScalarType,
  TENSOR_TYPES,
  type TensorTypeName,
  tensorBytes,
  VALUE_TYPES,
  type Value,
  VERSION,
} from './format.js';

/** Where a tensor lies. */
export interface StoredGgufTensor {
  readonly name: string;
  /** Outermost dimension first. */
  readonly shape: readonly number[];
  readonly type: TensorTypeName;
  /** Bytes from the start of the file. */
  readonly position: number;
  readonly bytes: number;
}

export interface Gguf {
  readonly file: string;
  readonly metadata: ReadonlyMap<string, Value>;
  readonly tensors: ReadonlyMap<string, StoredGgufTensor>;
}

/** Bounds of what is believed [gguf.md: names have at most 64 bytes, keys 65535; ggml's tensors four dimensions]. */
const MAX_DIMENSIONS = 4;
const MAX_NAME_BYTES = 65535;

/**
 * Reads and checks everything but the data: types are known, tensors lie aligned, inside the file and apart.
 * @throws UserError naming the file and what is wrong with it
 */
export function readGguf(file: string): Gguf {
  return withDescriptor(file, (descriptor, size) => {
    const source = new ByteReader(descriptor, file, size);
    const { tensorCount, valueCount } = readCounts(source);
    const metadata = readMetadata(source, valueCount);
    const entries = Array.from({ length: tensorCount }, () => readEntry(source));
    const alignment = alignmentOf(metadata, file);
    return {
      file,
      metadata,
      tensors: placeTensors(entries, padded(source.position, alignment), alignment, source),
    };
  });
}

/** A tensor's elements as f32. @throws UserError when there is none of that name */
export function readGgufTensor(gguf: Gguf, name: string): Float32Array {
  const tensor = gguf.tensors.get(name);
  if (!tensor) throw new UserError(`${gguf.file} has no tensor ${name}`);
  return withDescriptor(gguf.file, (descriptor) => {
    const bytes = new Uint8Array(tensor.bytes);
    if (!readFully(descriptor, bytes, tensor.position))
      throw corrupt(gguf.file, `tensor ${name} is cut short`);
    return TENSOR_TYPES[tensor.type].decode(bytes);
  });
}

function withDescriptor<T>(file: string, action: (descriptor: number, size: number) => T): T {
  return withFileErrors('read', file, () => {
    const descriptor = fs.openSync(file, 'r');
    try {
      return action(descriptor, fs.fstatSync(descriptor).size);
    } finally {
      fs.closeSync(descriptor);
    }
  });
}

function readCounts(source: ByteReader): { tensorCount: number; valueCount: number } {
  if (source.size < 24 || source.integer('u32') !== MAGIC)
    throw source.corrupt('it does not begin with GGUF');
  const version = source.integer('u32');
  if (version !== VERSION) throw source.corrupt(`its version is ${version}; only ${VERSION} can be read`);
  // A tensor's description has at least 24 bytes, a pair of key and value 13.
  return { tensorCount: source.count(24), valueCount: source.count(13) };
}

function readMetadata(source: ByteReader, count: number): Map<string, Value> {
  const metadata = new Map<string, Value>();
  for (let i = 0; i < count; i++) {
    const key = source.text(MAX_NAME_BYTES);
    if (metadata.has(key)) throw source.corrupt(`it has key ${key} twice`);
    metadata.set(key, readValue(source, key));
  }
  return metadata;
}

const VALUE_NAMES = new Map(Object.entries(VALUE_TYPES).map(([name, code]) => [code as number, name]));
const TYPE_NAMES = new Map(Object.entries(TENSOR_TYPES).map(([name, { code }]) => [code as number, name]));

function readValue(source: ByteReader, key: string): Value {
  const type = valueType(source, key);
  if (type !== 'array') return { type, value: source.scalar(type) };
  const of = valueType(source, key);
  if (of === 'array') throw source.corrupt(`key ${key} is an array of arrays`);
  const length = source.count(WIDTHS[of]);
  return { type, of, value: Array.from({ length }, () => source.scalar(of)) };
}

function valueType(source: ByteReader, key: string): ScalarType | 'array' {
  const code = source.integer('u32');
  const name = VALUE_NAMES.get(code);
  if (!name) throw source.corrupt(`key ${key} has a value of type ${code}, which does not exist`);
  return name as ScalarType | 'array';
}

interface Entry {
  name: string;
  shape: number[];
  type: TensorTypeName;
  offset: number;
}

function readEntry(source: ByteReader): Entry {
  const name = source.text(MAX_NAME_BYTES);
  const dimensions = source.integer('u32');
  if (dimensions > MAX_DIMENSIONS) throw source.corrupt(`tensor ${name} has ${dimensions} dimensions`);
  const shape = Array.from({ length: dimensions }, () => source.integer('u64')).reverse();
  const code = source.integer('u32');
  const type = TYPE_NAMES.get(code) as TensorTypeName | undefined;
  if (!type) {
    const known = [...TYPE_NAMES].map(([number, known]) => `${known} (${number})`).join(', ');
    throw new UserError(`${source.file}: tensor ${name} has ggml type ${code}; supported are ${known}`);
  }
  if ((shape.at(-1) ?? 1) % TENSOR_TYPES[type].block !== 0) {
    throw source.corrupt(`tensor ${name} of shape [${shape}] has no whole blocks of ${type}`);
  }
  return { name, shape, type, offset: source.integer('u64') };
}

function alignmentOf(metadata: ReadonlyMap<string, Value>, file: string): number {
  const given = metadata.get('general.alignment')?.value ?? ALIGNMENT;
  if (typeof given === 'number' && given >= 8 && given <= 1 << 20 && (given & (given - 1)) === 0)
    return given;
  throw corrupt(file, `general.alignment is ${String(given)}, not a power of two`);
}

/** Tensors by name with their places; each lies within the file, aligned, and after the one before it. */
function placeTensors(
  entries: Entry[],
  dataStart: number,
  alignment: number,
  source: ByteReader,
): Map<string, StoredGgufTensor> {
  const tensors = new Map<string, StoredGgufTensor>();
  let end = dataStart;
  for (const { offset, ...entry } of [...entries].sort((a, b) => a.offset - b.offset)) {
    const bytes = tensorBytes(entry.shape, TENSOR_TYPES[entry.type]);
    const position = dataStart + offset;
    const fail = (what: string) => source.corrupt(`tensor ${entry.name} ${what}`);
    if (tensors.has(entry.name)) throw fail('is there twice');
    if (offset % alignment !== 0)
      throw fail(`begins at byte ${offset}, which is not aligned to ${alignment}`);
    if (position < end) throw fail('overlaps the one before it');
    if (!(position + bytes <= source.size))
      throw fail(`reaches beyond the file of ${source.size} bytes; it is cut short`);
    tensors.set(entry.name, { ...entry, position, bytes });
    end = position + bytes;
  }
  return tensors;
}

/** Bytes of a scalar, a string's least. */
const WIDTHS: Record<ScalarType, number> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: 8,
  u64: 8,
  i64: 8,
  f64: 8,
};

const READERS: Record<Exclude<ScalarType, 'string'>, (view: DataView) => number | bigint | boolean> = {
  u8: (v) => v.getUint8(0),
  i8: (v) => v.getInt8(0),
  u16: (v) => v.getUint16(0, true),
  i16: (v) => v.getInt16(0, true),
  u32: (v) => v.getUint32(0, true),
  i32: (v) => v.getInt32(0, true),
  f32: (v) => v.getFloat32(0, true),
  f64: (v) => v.getFloat64(0, true),
  bool: (v) => v.getUint8(0) !== 0,
  u64: (v) => v.getBigUint64(0, true),
  i64: (v) => v.getBigInt64(0, true),
};

/** Bytes read ahead. */
const WINDOW = 1 << 20;

/** Reads a file from its start, value by value; nothing is allocated for what the file has not got the bytes for. */
class ByteReader {
  position = 0;
  private window = new Uint8Array(0);
  private windowStart = 0;

  constructor(
    private readonly descriptor: number,
    readonly file: string,
    readonly size: number,
  ) {}

  corrupt(what: string): UserError {
    return corrupt(this.file, what);
  }

  scalar(type: ScalarType): number | bigint | boolean | string {
    if (type === 'string') return this.text(this.size);
    const bytes = this.take(WIDTHS[type]);
    return READERS[type](new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  /** An unsigned integer that JavaScript holds exactly. */
  integer(type: 'u32' | 'u64'): number {
    const value = Number(this.scalar(type));
    if (!Number.isSafeInteger(value)) throw this.corrupt(`a size in it is ${value}`);
    return value;
  }

  /** How many things of at least `bytes` bytes follow. */
  count(bytes: number): number {
    const value = this.integer('u64');
    if (value * bytes > this.size - this.position) {
      throw this.corrupt(`it claims ${value} entries, more than its ${this.size} bytes hold`);
    }
    return value;
  }

  /** A length and so many bytes of UTF-8; what is no UTF-8 becomes U+FFFD, as vocabularies may hold parts of characters. */
  text(limit: number): string {
    const length = this.integer('u64');
    if (length > limit) throw this.corrupt(`a text in it has ${length} bytes`);
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.take(length));
  }

  private take(bytes: number): Uint8Array {
    if (bytes > this.size - this.position) throw this.corrupt('it is cut short');
    const from = this.position - this.windowStart;
    if (from < 0 || from + bytes > this.window.length) this.fill(bytes);
    const start = this.position - this.windowStart;
    this.position += bytes;
    return this.window.subarray(start, start + bytes);
  }

  private fill(bytes: number): void {
    this.window = new Uint8Array(Math.min(Math.max(bytes, WINDOW), this.size - this.position));
    this.windowStart = this.position;
    if (!readFully(this.descriptor, this.window, this.position))
      throw this.corrupt('it was shortened while being read');
  }
}

/** The error for a file that cannot be what its name says. */
const corrupt = (file: string, what: string) =>
  new UserError(`${file} is not a usable GGUF file: ${what}; convert or download it again`);
