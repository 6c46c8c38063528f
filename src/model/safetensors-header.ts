/** The header of a safetensors file, and everything that must be true of it. */
import fs from 'node:fs';
import { UserError } from '../errors.js';
import { readFully, withFileErrors } from '../files.js';

/** Bytes of one element, by name of the type. */
export const ELEMENT_BYTES = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I8: 1,
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

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isNaturals = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);

/** The error for a file that cannot be what its name says. */
export const corrupt = (file: string, what: string) =>
  new UserError(`${file} is not a usable safetensors file: ${what}; copy or download it again`);
