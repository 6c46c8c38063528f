/**
 * GGUF version 3 [https://github.com/ggml-org/ggml/blob/master/docs/gguf.md]: magic, version, counts, key-value pairs,
 * descriptions of tensors, padding, data. Little-endian; every tensor starts at a multiple of the alignment.
 */
import { decodeBf16Array, encodeBf16Array } from '../../numerics/bf16.js';
import {
  BLOCK,
  decodeQ4,
  decodeQ8,
  encodeQ4,
  encodeQ8,
  Q4_0_BYTES,
  Q8_0_BYTES,
} from '../../numerics/ggml.js';
import { FP16 } from '../../numerics/minifloat.js';

/** "GGUF" as a little-endian u32. */
export const MAGIC = 0x46554747;
export const VERSION = 3;
/** Default of `general.alignment`. */
export const ALIGNMENT = 32;

/** Kinds of metadata values and their codes. */
export const VALUE_TYPES = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;
export type ValueType = keyof typeof VALUE_TYPES;
export type ScalarType = Exclude<ValueType, 'array'>;
type Scalar = number | bigint | boolean | string;

/** A metadata value with its type; 64-bit integers are bigints when read. */
export type Value =
  | { type: ScalarType; value: Scalar }
  | { type: 'array'; of: ScalarType; value: readonly Scalar[] };

/** How a tensor's elements are stored. */
export interface TensorType {
  /** ggml's number of it. */
  readonly code: number;
  /** `general.file_type` of a file whose matrices have it. */
  readonly fileType: number;
  /** Consecutive elements of a row that are encoded together, and the bytes of them. */
  readonly block: number;
  readonly bytes: number;
  encode(values: Float32Array): Uint8Array;
  decode(bytes: Uint8Array): Float32Array;
}

const bytesOf = (data: Float32Array | Uint16Array): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
/** A copy that starts where a wider element may start. */
const aligned = (bytes: Uint8Array): ArrayBuffer => Uint8Array.from(bytes).buffer;

/** The types that are written here, by the name that `--dtype` takes; codes of `ggml_type`, file types of `llama_ftype`. */
export const TENSOR_TYPES = {
  f32: {
    code: 0,
    fileType: 0,
    block: 1,
    bytes: 4,
    encode: bytesOf,
    decode: (bytes) => new Float32Array(aligned(bytes)),
  },
  f16: {
    code: 1,
    fileType: 1,
    block: 1,
    bytes: 2,
    encode: (values) => bytesOf(Uint16Array.from(values, (value) => FP16.encode(value))),
    decode: (bytes) => FP16.decodeArray(new Uint16Array(aligned(bytes))),
  },
  bf16: {
    code: 30,
    fileType: 32,
    block: 1,
    bytes: 2,
    encode: (values) => bytesOf(encodeBf16Array(values)),
    decode: (bytes) => decodeBf16Array(new Uint16Array(aligned(bytes))),
  },
  q8_0: { code: 8, fileType: 7, block: BLOCK, bytes: Q8_0_BYTES, encode: encodeQ8, decode: decodeQ8 },
  q4_0: { code: 2, fileType: 2, block: BLOCK, bytes: Q4_0_BYTES, encode: encodeQ4, decode: decodeQ4 },
} as const satisfies Record<string, TensorType>;
export type TensorTypeName = keyof typeof TENSOR_TYPES;

/** Bytes of a tensor of `shape` (outermost dimension first); its rows must be whole blocks. */
export function tensorBytes(shape: readonly number[], type: TensorType): number {
  return (shape.reduce((n, d) => n * d, 1) / type.block) * type.bytes;
}

export const padded = (position: number, alignment: number): number =>
  Math.ceil(position / alignment) * alignment;
