/**
 * Event files for TensorBoard, written by hand: a file is a row of TFRecords, each holding one protobuf `Event`.
 *
 * Formats: record framing [tensorflow/core/lib/io/record_writer.h], messages [tensorflow/core/util/event.proto,
 * tensorflow/core/framework/summary.proto, tensor.proto]; field numbers below are theirs.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileError, makeFolder, withFileErrors, writeFully } from '../files.js';
import { fixed32, fixed64, message, text, varint } from './protobuf.js';

/** CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of each byte value. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C [RFC 3720 appendix B.4]. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** A record's checksum is rotated by 15 bits and offset [tensorflow/core/lib/hash/crc32c.h, `Mask`]. */
const masked = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

/** One TFRecord: u64 length, its checksum, the data, their checksum. */
export function record(data: Uint8Array): Uint8Array {
  const out = Buffer.alloc(12 + data.length + 4);
  out.writeBigUInt64LE(BigInt(data.length), 0);
  out.writeUInt32LE(masked(crc32c(out.subarray(0, 8))), 8);
  out.set(data, 12);
  out.writeUInt32LE(masked(crc32c(data)), 12 + data.length);
  return out;
}

/** DataType of tensor.proto. */
const DT_STRING = 7;
/** SessionLog.SessionStatus: readers drop what was said before about this step and later ones. */
const SESSION_START = 1;

/** Event { wall_time = 1, step = 2, and one of file_version = 3, summary = 5, session_log = 7 } */
const event = (seconds: number, step: number, what: Uint8Array): Uint8Array =>
  Buffer.concat([fixed64(1, seconds), varint(2, step), what]);

/** Summary { value = 1 } of Summary.Value { tag = 1, simple_value = 2 } */
const scalarSummary = (values: readonly (readonly [string, number])[]): Uint8Array =>
  message(5, ...values.map(([tag, value]) => message(1, text(1, tag), fixed32(2, value))));

/**
 * Summary.Value { tag = 1, tensor = 8, metadata = 9 } with TensorProto { dtype = 1, tensor_shape = 2, string_val = 8 }
 * and SummaryMetadata { plugin_data = 1 { plugin_name = 1 } }.
 */
function textSummary(tag: string, content: string): Uint8Array {
  const oneString = message(2, message(2, varint(1, 1)));
  const tensor = message(8, varint(1, DT_STRING), oneString, text(8, content));
  return message(5, message(1, text(1, tag), tensor, message(9, message(1, text(1, 'text')))));
}

/**
 * An event file being written, beside those of earlier processes of the same run. Every call is one write, so that
 * a killed process tears at most the last record.
 */
export class TensorBoardWriter {
  /** Path of the file. */
  readonly file: string;
  private readonly descriptor: number;
  private size = 0;

  /**
   * Starts a new file in `folder`.
   * @param now seconds since 1970
   * @throws UserError when the file cannot be written
   */
  constructor(
    folder: string,
    private readonly now: () => number = () => Date.now() / 1000,
  ) {
    this.file = freeName(folder, Math.floor(now()));
    this.descriptor = withFileErrors('write', folder, () => {
      makeFolder(folder);
      return fs.openSync(this.file, 'wx');
    });
    this.write(0, text(3, 'brain.Event:2'));
  }

  /** Numbers by tag, e.g. `{ 'loss/train': 3.2 }`. */
  scalars(step: number, values: Readonly<Record<string, number>>): void {
    this.write(step, scalarSummary(Object.entries(values)));
  }

  /** A text, shown as Markdown. */
  text(step: number, tag: string, content: string): void {
    this.write(step, textSummary(tag, content));
  }

  /** Values after `step` that were written before, here or in earlier files, no longer count: the run goes on from there. */
  rewind(step: number): void {
    this.write(step + 1, message(7, varint(1, SESSION_START)));
  }

  close(): void {
    fs.closeSync(this.descriptor);
  }

  private write(step: number, what: Uint8Array): void {
    const bytes = record(event(this.now(), step, what));
    try {
      writeFully(this.descriptor, bytes, this.size);
    } catch (error) {
      throw fileError('write', this.file, error);
    }
    this.size += bytes.length;
  }
}

/** `events.out.tfevents.SECONDS.HOST.N`: TensorBoard reads the files of a folder in the order of their names. */
function freeName(folder: string, seconds: number): string {
  const name = (n: number) => path.join(folder, `events.out.tfevents.${seconds}.${os.hostname()}.${n}`);
  let n = 0;
  while (fs.existsSync(name(n))) n++;
  return name(n);
}
