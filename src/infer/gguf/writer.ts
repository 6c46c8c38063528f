import { writeFileAtomicallySync, writeFully } from '../../files.js';
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

/** A tensor to be written. */
export interface GgufTensor {
  readonly name: string;
  /** Outermost dimension first, as everywhere here; the file has them the other way round. */
  readonly shape: readonly number[];
  readonly type: TensorTypeName;
  /** Its elements in row-major order, in pieces of whole rows; asked for once, when its turn comes. */
  readonly values: () => Iterable<Float32Array>;
}

/**
 * Writes a file piece by piece, replacing an older one only when complete.
 * @param written called after every piece with the bytes of tensor data written so far and in all
 * @throws UserError when the disk fails
 */
export function writeGguf(
  file: string,
  metadata: ReadonlyMap<string, Value>,
  tensors: readonly GgufTensor[],
  written: (bytes: number, total: number) => void = () => {},
): void {
  const total = tensors.reduce((sum, { shape, type }) => sum + tensorBytes(shape, TENSOR_TYPES[type]), 0);
  writeFileAtomicallySync(file, (descriptor) => {
    const header = headerBytes(metadata, tensors);
    writeFully(descriptor, header, 0);
    let done = 0;
    let position = header.length;
    for (const tensor of tensors) {
      for (const bytes of encodedPieces(tensor)) {
        writeFully(descriptor, bytes, position);
        position += bytes.length;
        done += bytes.length;
        written(done, total);
      }
      const gap = padded(position, ALIGNMENT) - position;
      writeFully(descriptor, new Uint8Array(gap), position);
      position += gap;
    }
  });
}

function* encodedPieces({ name, shape, type, values }: GgufTensor): Iterable<Uint8Array> {
  let left = tensorBytes(shape, TENSOR_TYPES[type]);
  for (const piece of values()) {
    const bytes = TENSOR_TYPES[type].encode(piece);
    left -= bytes.length;
    yield bytes;
  }
  if (left !== 0) throw new Error(`tensor ${name} gave ${-left} bytes too many`);
}

/** Everything before the data, padded so that the data is aligned. */
function headerBytes(metadata: ReadonlyMap<string, Value>, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new ByteWriter();
  out.scalar('u32', MAGIC);
  out.scalar('u32', VERSION);
  out.scalar('u64', tensors.length);
  out.scalar('u64', metadata.size);
  for (const [key, value] of metadata) {
    out.scalar('string', key);
    out.value(value);
  }
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    out.scalar('string', name);
    out.scalar('u32', shape.length);
    for (const size of [...shape].reverse()) out.scalar('u64', size);
    out.scalar('u32', TENSOR_TYPES[type].code);
    out.scalar('u64', offset);
    offset = padded(offset + tensorBytes(shape, TENSOR_TYPES[type]), ALIGNMENT);
  }
  return out.bytes(ALIGNMENT);
}

/** Bytes appended value by value. */
class ByteWriter {
  private buffer = Buffer.alloc(1 << 16);
  private length = 0;

  value(value: Value): void {
    this.scalar('u32', VALUE_TYPES[value.type]);
    if (value.type !== 'array') {
      this.scalar(value.type, value.value);
      return;
    }
    this.scalar('u32', VALUE_TYPES[value.of]);
    this.scalar('u64', value.value.length);
    for (const element of value.value) this.scalar(value.of, element);
  }

  scalar(type: ScalarType, value: number | bigint | boolean | string): void {
    if (type === 'string') {
      const text = Buffer.from(value as string, 'utf8');
      this.scalar('u64', text.length);
      this.reserve(text.length);
      this.length += text.copy(this.buffer, this.length);
      return;
    }
    this.reserve(8);
    this.length = WRITERS[type](this.buffer, Number(value), this.length);
  }

  /** What was written, with zeros up to a multiple of `alignment`. */
  bytes(alignment: number): Uint8Array {
    const end = padded(this.length, alignment);
    this.reserve(end - this.length);
    this.buffer.fill(0, this.length, end);
    return this.buffer.subarray(0, end);
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const larger = Buffer.alloc(Math.max(2 * this.buffer.length, this.length + bytes));
    this.buffer.copy(larger, 0, 0, this.length);
    this.buffer = larger;
  }
}

type Write = (buffer: Buffer, value: number, at: number) => number;

const WRITERS: Record<Exclude<ScalarType, 'string'>, Write> = {
  u8: (b, v, at) => b.writeUInt8(v, at),
  i8: (b, v, at) => b.writeInt8(v, at),
  u16: (b, v, at) => b.writeUInt16LE(v, at),
  i16: (b, v, at) => b.writeInt16LE(v, at),
  u32: (b, v, at) => b.writeUInt32LE(v, at),
  i32: (b, v, at) => b.writeInt32LE(v, at),
  f32: (b, v, at) => b.writeFloatLE(v, at),
  f64: (b, v, at) => b.writeDoubleLE(v, at),
  bool: (b, v, at) => b.writeUInt8(v ? 1 : 0, at),
  u64: (b, v, at) => b.writeBigUInt64LE(BigInt(v), at),
  i64: (b, v, at) => b.writeBigInt64LE(BigInt(v), at),
};
