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
import {
  corrupt,
  ELEMENT_BYTES,
  isObject,
  readHeader,
  type StoredTensor,
  type StoredType,
} from './safetensors-header.js';

export { readHeader, type StoredTensor, type StoredType } from './safetensors-header.js';

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

  /** The stored bytes of a tensor, or `length` of them from byte `from` on, in memory of their own. */
  read(name: string, from = 0, length = this.entry(name).bytes): Uint8Array<ArrayBuffer> {
    const { position, file } = this.entry(name);
    const out = new Uint8Array(length);
    const complete = withFileErrors('read', file, () =>
      readFully(this.descriptor(file), out, position + from),
    );
    if (!complete) throw corrupt(file, `tensor ${name} is cut short`);
    return out;
  }

  /**
   * A tensor's elements as f32, into `out` if given: as many as it takes, from element `from` on. F64 is rounded, other
   * floating types are exact.
   * @throws UserError for integer types
   */
  readFloats(name: string, out?: Float32Array<ArrayBuffer>, from = 0): Float32Array<ArrayBuffer> {
    const entry = this.entry(name);
    const decode = DECODERS[entry.dtype];
    if (!decode)
      throw new UserError(`${entry.file}: tensor ${name} has type ${entry.dtype}; a floating type is needed`);
    const width = ELEMENT_BYTES[entry.dtype];
    const target = out ?? new Float32Array(entry.bytes / width);
    decode(this.read(name, from * width, target.length * width), target);
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
