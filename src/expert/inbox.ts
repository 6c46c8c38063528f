import { crc32 } from 'node:zlib';
import type { Arrival } from './plan.js';

/**
 * A message of rows, in memory that the node shares or on its way: a header of 16 bytes, then, for rows that come with their
 * choices, ids i32 [n, K] and weights f32 [n, K], then n rows, then `tail` floats of f32 [n, K] where gradients of weights
 * come back.
 */

export const HEADER_BYTES = 16;
/** Words of the header. */
const [ROWS, CHECKSUM, SERIAL] = [0, 1, 2];

export interface MessageShape {
  topK: number;
  rowBytes: number;
  /** Whether choices go with the rows. */
  choices: boolean;
  /** Whether gradients of the weights follow. */
  tail: boolean;
}

/** Byte of the first row in a message of `count` rows. */
export const rowsStart = ({ topK, choices }: MessageShape, count: number): number =>
  HEADER_BYTES + (choices ? 8 * topK * count : 0);

/** Bytes of a message of `count` rows. */
export const messageBytes = (shape: MessageShape, count: number): number =>
  rowsStart(shape, count) + count * (shape.rowBytes + (shape.tail ? 4 * shape.topK : 0));

/** One message in `bytes`, whose start is a multiple of four. */
export class Message {
  private readonly words: Int32Array;

  constructor(
    readonly bytes: Uint8Array,
    readonly shape: MessageShape,
  ) {
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, HEADER_BYTES / 4);
  }

  get count(): number {
    return this.words[ROWS]!;
  }

  /** Bytes in use. */
  get length(): number {
    return messageBytes(this.shape, this.count);
  }

  /** Begins a message of `count` rows; their choices are those of `tokens`. */
  begin(count: number, serial: number): void {
    this.words.fill(0);
    this.words[ROWS] = count;
    this.words[SERIAL] = serial;
  }

  putChoices(tokens: Int32Array, ids: Int32Array, weights: Float32Array): void {
    const { ids: to, weights: toWeights } = this.choices();
    const { topK } = this.shape;
    for (let r = 0; r < tokens.length; r++) {
      const from = tokens[r]! * topK;
      for (let k = 0; k < topK; k++) {
        to[r * topK + k] = ids[from + k]!;
        toWeights[r * topK + k] = weights[from + k]!;
      }
    }
  }

  /** The choices, where they are. */
  choices(): Arrival {
    const { count, shape, bytes } = this;
    const start = bytes.byteOffset + HEADER_BYTES;
    return {
      count,
      ids: new Int32Array(bytes.buffer, start, count * shape.topK),
      weights: new Float32Array(bytes.buffer, start + 4 * count * shape.topK, count * shape.topK),
    };
  }

  /** f32 [n, K] behind the rows. */
  tail(): Float32Array {
    const { count, shape, bytes } = this;
    const start = rowsStart(shape, count) + count * shape.rowBytes;
    return new Float32Array(bytes.buffer, bytes.byteOffset + start, count * shape.topK);
  }

  /** Offset of row `r` from the start of the message. */
  rowAt(r: number): number {
    return rowsStart(this.shape, this.count) + r * this.shape.rowBytes;
  }

  /** Puts the checksum of all that follows the header into it. */
  seal(): void {
    this.words[CHECKSUM] = this.sum();
  }

  /** Whether the message is whole and the expected one. */
  isSound(serial: number, checked: boolean): boolean {
    const { count } = this;
    if (this.words[SERIAL] !== serial || count < 0 || this.length > this.bytes.length) return false;
    return !checked || this.words[CHECKSUM] === this.sum();
  }

  private sum(): number {
    return crc32(this.bytes.subarray(HEADER_BYTES, this.length)) | 0;
  }
}
