/**
 * Safetensors files [https://huggingface.co/docs/safetensors]: u64 length of the header, the header (JSON: name →
 * {dtype, shape, data_offsets}), the data. Little-endian, row-major, no gaps.
 *
 * A reader holds the headers only; `read` fetches one tensor with positioned reads. Everything that a file claims
 * is checked against its true size before memory is allocated for it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { UserError } from '../errors.js';
import { readFully, readJsonFile, withFileErrors, writeFileAtomicallySync, writeFully } from '../files.js';
import { decodeBf16Array } from '../numerics/bf16.js';
import { E4M3, E5M2, FP16 } from '../numerics/minifloat.js';

/** Bytes of one element, by name of the type. */
const ELEMENT_BYTES = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  U8: 1,
  BOOL: 1,
} as const;
export type StoredType = keyof typeof ELEMENT_BYTES;

/** Where a tensor lies. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  readonly file: string;
  /** Bytes from the start of the file. */
  readonly position: number;
  readonly bytes: number;
}

/** Largest header that the reference implementation accepts. */
const MAX_HEADER_BYTES = 100_000_000;

// ---- Header ---------------------------------------------------------------------------------------------------

/**
 * Reads and checks the header of one file.
 * @throws UserError naming the file and, where one is at fault, the tensor
 */
export function readHeader(file: string): Map<string, StoredTensor> {
  const descriptor = withFileErrors('read', file, () => fs.openSync(file, 'r'));
  try {
    const size = withFileErrors('read', file, () => fs.fstatSync(descriptor).size);
    const header = withFileErrors('read', file, () => readHeaderBytes(descriptor, file, size));
    const tensors = parseHeader(header, file);
    checkCoverage(tensors, file, 8 + header.length, size);
    return new Map(tensors.map((tensor) => [tensor.name, tensor]));
  } finally {
    fs.closeSync(descriptor);
  }
}

function readHeaderBytes(descriptor: number, file: string, size: number): Uint8Array {
  const prefix = new Uint8Array(8);
  if (!readFully(descriptor, prefix, 0))
    throw corrupt(file, `has ${size} bytes, too few for a safetensors file`);
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (length > size - 8)
    throw corrupt(file, `its header of ${length} bytes reaches beyond its end (${size} bytes)`);
  if (length > MAX_HEADER_BYTES)
    throw corrupt(file, `its header of ${length} bytes exceeds ${MAX_HEADER_BYTES}`);
  const header = new Uint8Array(length);
  if (!readFully(descriptor, header, 8)) throw corrupt(file, 'it was shortened while being read');
  return header;
}

function parseHeader(header: Uint8Array, file: string): StoredTensor[] {
  const { text, json } = decodeJson(header, file);
  if (!isObject(json)) throw corrupt(file, 'its header is not a JSON object');
  const twice = firstDuplicateKey(text);
  if (twice !== undefined) throw corrupt(file, `its header names ${twice} twice`);
  const entries = Object.entries(json).filter(([name]) => name !== '__metadata__');
  return entries.map(([name, entry]) => parseEntry(name, entry, file, 8 + header.length));
}

function decodeJson(header: Uint8Array, file: string): { text: string; json: unknown } {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
    return { text, json: JSON.parse(text) };
  } catch {
    throw corrupt(file, 'its header is not JSON in UTF-8');
  }
}

/** @param dataStart bytes before the data, to which offsets are relative */
function parseEntry(name: string, entry: unknown, file: string, dataStart: number): StoredTensor {
  const fail = (what: string): never => {
    throw corrupt(file, `tensor ${name} ${what}`);
  };
  if (!isObject(entry)) return fail('has no description');
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    return fail(`has dtype ${JSON.stringify(dtype)}; supported are ${Object.keys(ELEMENT_BYTES).join(', ')}`);
  }
  if (!isNaturals(shape)) return fail(`has shape ${JSON.stringify(shape)}, not a list of sizes`);
  if (!isNaturals(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    return fail(`has data_offsets ${JSON.stringify(offsets)}, not [begin, end]`);
  }
  const bytes = offsets[1]! - offsets[0]!;
  const needed = shape.reduce((n, d) => n * d, ELEMENT_BYTES[dtype as StoredType]);
  if (bytes !== needed)
    return fail(`of shape [${shape}] and type ${dtype} needs ${needed} bytes but has ${bytes}`);
  return { name, dtype: dtype as StoredType, shape, file, position: dataStart + offsets[0]!, bytes };
}

/** The data must be exactly covered: no overlap, no gap, nothing after the last tensor, nothing beyond the file. */
function checkCoverage(tensors: StoredTensor[], file: string, dataStart: number, size: number): void {
  let end = dataStart;
  for (const tensor of [...tensors].sort((a, b) => a.position - b.position || a.bytes - b.bytes)) {
    if (tensor.position < end) throw corrupt(file, `tensor ${tensor.name} overlaps the one before it`);
    if (tensor.position > end) throw corrupt(file, `there is a gap before tensor ${tensor.name}`);
    end = tensor.position + tensor.bytes;
    if (end > size) {
      throw corrupt(
        file,
        `tensor ${tensor.name} reaches to byte ${end} but the file has ${size}; it is cut short`,
      );
    }
  }
  if (end < size) throw corrupt(file, `${size - end} bytes follow the last tensor`);
}

/** First key that appears twice in the outermost object of valid JSON; JSON.parse would keep the last silently. */
function firstDuplicateKey(text: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(?:\s*:)?|[{}[\]]/g)) {
    if (token === '{' || token === '[') depth++;
    else if (token === '}' || token === ']') depth--;
    else if (depth === 1 && token.endsWith(':')) {
      const key: string = JSON.parse(token.slice(0, -1));
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return undefined;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isNaturals = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);

const corrupt = (file: string, what: string) =>
  new UserError(`${file} is not a usable safetensors file: ${what}; copy or download it again`);

// ---- Reading --------------------------------------------------------------------------------------------------

/** Name of the file that maps tensors to shards. */
export const INDEX_FILE = 'model.safetensors.index.json';
/** Name of a checkpoint in one file. */
export const SINGLE_FILE = 'model.safetensors';

/** The tensors of one file or of a folder with shards; files stay open until `close`. */
export class SafetensorsReader {
  private readonly descriptors = new Map<string, number>();

  private constructor(
    /** File or folder that was opened. */
    readonly source: string,
    readonly tensors: ReadonlyMap<string, StoredTensor>,
  ) {}

  /**
   * @param source a `.safetensors` file, or a folder with `model.safetensors` or, where that is absent,
   *   `model.safetensors.index.json` and the shards that it names
   * @throws UserError when a file is missing or damaged
   */
  static open(source: string): SafetensorsReader {
    if (!withFileErrors('read', source, () => fs.statSync(source)).isDirectory()) {
      return new SafetensorsReader(source, readHeader(source));
    }
    const single = path.join(source, SINGLE_FILE);
    if (fs.existsSync(single)) return new SafetensorsReader(source, readHeader(single));
    const index = path.join(source, INDEX_FILE);
    if (!fs.existsSync(index)) {
      throw new UserError(
        `${source} has neither ${SINGLE_FILE} nor ${INDEX_FILE}; is it a checkpoint folder?`,
      );
    }
    return new SafetensorsReader(source, readShards(source, index));
  }

  /** @throws UserError when there is no tensor of that name */
  entry(name: string): StoredTensor {
    const found = this.tensors.get(name);
    if (!found) throw new UserError(`${this.source} has no tensor ${name}`);
    return found;
  }

  /** The stored bytes of a tensor, in memory of their own. */
  read(name: string): Uint8Array<ArrayBuffer> {
    const { bytes, position, file } = this.entry(name);
    const out = new Uint8Array(bytes);
    const complete = withFileErrors('read', file, () => readFully(this.descriptor(file), out, position));
    if (!complete) throw corrupt(file, `tensor ${name} is cut short`);
    return out;
  }

  /**
   * A tensor's elements as f32, into `out` if given (same number of elements). F64 is rounded, other floating
   * types are exact.
   * @throws UserError for integer types
   */
  readFloats(name: string, out?: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
    const entry = this.entry(name);
    const decode = DECODERS[entry.dtype];
    if (!decode)
      throw new UserError(`${entry.file}: tensor ${name} has type ${entry.dtype}; a floating type is needed`);
    const target = out ?? new Float32Array(entry.bytes / ELEMENT_BYTES[entry.dtype]);
    decode(this.read(name), target);
    return target;
  }

  /** A tensor's elements as i32. @throws UserError for floating types and for values beyond 32 bits */
  readIntegers(name: string): Int32Array {
    const entry = this.entry(name);
    const values = integers(entry, this.read(name));
    const bad = values.find((value) => value !== (value | 0));
    if (bad !== undefined) throw new UserError(`${entry.file}: tensor ${name} holds ${bad}, beyond 32 bits`);
    return Int32Array.from(values);
  }

  close(): void {
    for (const descriptor of this.descriptors.values()) fs.closeSync(descriptor);
    this.descriptors.clear();
  }

  private descriptor(file: string): number {
    const open = this.descriptors.get(file) ?? fs.openSync(file, 'r');
    this.descriptors.set(file, open);
    return open;
  }
}

function readShards(folder: string, index: string): Map<string, StoredTensor> {
  const json = readJsonFile(index);
  const map = isObject(json) ? json.weight_map : undefined;
  if (!isObject(map)) throw new UserError(`${index} has no weight_map from tensors to files`);
  const headers = new Map<string, Map<string, StoredTensor>>();
  const tensors = new Map<string, StoredTensor>();
  for (const [name, shard] of Object.entries(map)) {
    // A plain name: a map must not reach into other folders.
    if (typeof shard !== 'string' || shard !== path.basename(shard) || !shard.endsWith('.safetensors')) {
      throw new UserError(
        `${index} maps ${name} to ${JSON.stringify(shard)}, which is not the name of a shard`,
      );
    }
    const header = headers.get(shard) ?? readHeader(path.join(folder, shard));
    headers.set(shard, header);
    const entry = header.get(name);
    if (!entry)
      throw new UserError(`${path.join(folder, shard)} lacks tensor ${name}, which ${INDEX_FILE} puts there`);
    tensors.set(name, entry);
  }
  return tensors;
}

type Decoder = (bytes: Uint8Array<ArrayBuffer>, out: Float32Array<ArrayBuffer>) => void;

const DECODERS: Partial<Record<StoredType, Decoder>> = {
  F64: (bytes, out) => out.set(new Float64Array(bytes.buffer)),
  F32: (bytes, out) => out.set(new Float32Array(bytes.buffer)),
  F16: (bytes, out) => lookUp(new Uint16Array(bytes.buffer), FP16.values, out),
  BF16: (bytes, out) => void decodeBf16Array(new Uint16Array(bytes.buffer), out),
  F8_E4M3: (bytes, out) => lookUp(bytes, E4M3.values, out),
  F8_E5M2: (bytes, out) => lookUp(bytes, E5M2.values, out),
};

/** Whether a stored type holds floating-point numbers. */
export const isFloating = (dtype: StoredType): boolean => DECODERS[dtype] !== undefined;

function lookUp(codes: Uint8Array | Uint16Array, values: Float32Array, out: Float32Array): void {
  for (let i = 0; i < codes.length; i++) out[i] = values[codes[i]!]!;
}

function integers({ dtype, name, file }: StoredTensor, bytes: Uint8Array<ArrayBuffer>): number[] {
  if (dtype === 'I64') return Array.from(new BigInt64Array(bytes.buffer), Number);
  if (dtype === 'I32') return Array.from(new Int32Array(bytes.buffer));
  if (dtype === 'U8' || dtype === 'BOOL') return Array.from(bytes);
  throw new UserError(`${file}: tensor ${name} has type ${dtype}; an integer type is needed`);
}

// ---- Writing --------------------------------------------------------------------------------------------------

/** A tensor to be written. */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  /** The stored bytes, asked for once, when their turn comes. */
  readonly data: () => Uint8Array;
}

/** Bytes that a tensor takes on disk. */
export const storedBytes = (tensor: Pick<TensorToWrite, 'dtype' | 'shape'>): number =>
  tensor.shape.reduce((n, d) => n * d, ELEMENT_BYTES[tensor.dtype]);

/** Data start: a multiple of a cache line, so that mapped tensors are aligned for vector loads. */
const ALIGNMENT = 64;

/**
 * Writes one file, tensor by tensor, replacing it only when complete.
 * @throws UserError when the disk fails
 */
export function writeSafetensors(file: string, tensors: readonly TensorToWrite[]): void {
  // Wide types first: every tensor then starts at a multiple of its element size.
  const ordered = [...tensors].sort((a, b) => ELEMENT_BYTES[b.dtype] - ELEMENT_BYTES[a.dtype]);
  writeFileAtomicallySync(file, (descriptor) => {
    const header = headerBytes(ordered);
    writeFully(descriptor, header, 0);
    let position = header.length;
    for (const tensor of ordered) {
      const bytes = tensor.data();
      if (bytes.length !== storedBytes(tensor)) {
        throw new Error(`tensor ${tensor.name} gave ${bytes.length} bytes instead of ${storedBytes(tensor)}`);
      }
      writeFully(descriptor, bytes, position);
      position += bytes.length;
    }
  });
}

function headerBytes(tensors: readonly TensorToWrite[]): Uint8Array {
  let end = 0;
  const entries = tensors.map(({ name, dtype, shape }) => {
    const begin = end;
    end += storedBytes({ dtype, shape });
    return [name, { dtype, shape, data_offsets: [begin, end] }] as const;
  });
  const header = { __metadata__: { format: 'pt' }, ...Object.fromEntries(entries) };
  const json = Buffer.from(JSON.stringify(header));
  const padded = Math.ceil((8 + json.length) / ALIGNMENT) * ALIGNMENT;
  const out = Buffer.alloc(padded, ' ');
  out.writeBigUInt64LE(BigInt(padded - 8));
  json.copy(out, 8);
  return out;
}

/**
 * Writes a checkpoint folder's weights: one file, or shards of at most `maxBytes` of data (a larger tensor has a
 * shard to itself) and then their index. Weight files of an earlier save that are no longer part are removed last.
 * @returns names of the files, in order of writing
 */
export function writeSafetensorsFolder(
  folder: string,
  tensors: readonly TensorToWrite[],
  maxBytes = Number.POSITIVE_INFINITY,
): string[] {
  const shards = splitShards(tensors, maxBytes);
  const name = (i: number) =>
    shards.length === 1 ? SINGLE_FILE : `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`;
  const files = shards.map((_, i) => name(i));
  shards.forEach((shard, i) => {
    writeSafetensors(path.join(folder, files[i]!), shard);
  });
  if (shards.length > 1) {
    writeIndex(path.join(folder, INDEX_FILE), shards, files);
    files.push(INDEX_FILE);
  }
  removeStaleWeights(folder, files);
  return files;
}

const five = (n: number) => String(n).padStart(5, '0');

function splitShards(tensors: readonly TensorToWrite[], maxBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [[]];
  let used = 0;
  for (const tensor of tensors) {
    const bytes = storedBytes(tensor);
    if (used > 0 && used + bytes > maxBytes) {
      shards.push([]);
      used = 0;
    }
    shards.at(-1)!.push(tensor);
    used += bytes;
  }
  return shards;
}

function writeIndex(file: string, shards: TensorToWrite[][], files: string[]): void {
  const placed = shards.flatMap((shard, i) => shard.map((tensor) => [tensor.name, files[i]!] as const));
  const total = shards.flat().reduce((sum, tensor) => sum + storedBytes(tensor), 0);
  const json = { metadata: { total_size: total }, weight_map: Object.fromEntries(placed) };
  writeFileAtomicallySync(file, (descriptor) =>
    writeFully(descriptor, Buffer.from(`${JSON.stringify(json, null, 2)}\n`), 0),
  );
}

const WEIGHT_FILE = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;

function removeStaleWeights(folder: string, keep: string[]): void {
  const stale = fs.readdirSync(folder).filter((file) => WEIGHT_FILE.test(file) && !keep.includes(file));
  for (const file of stale) withFileErrors('remove', file, () => fs.rmSync(path.join(folder, file)));
}
