/**
 * A frame: a piece of a message between ranks of different nodes, as it travels on a plane, or, where a plane is down, from
 * rank to rank. A header of 40 bytes, then a payload. An acknowledgement is a frame without number and payload.
 */

/**
 * Bytes of a payload at most. With its header it stays below 64 KiB, up to which Open MPI sends over TCP at once (`btl_tcp_eager_limit`):
 * beyond, the receiver's consent would queue behind what it sends itself.
 */
export const PAYLOAD_BYTES = 60 << 10;
export const FRAME_HEADER_BYTES = 40;
export const FRAME_BYTES = FRAME_HEADER_BYTES + PAYLOAD_BYTES;

export interface FrameHeader {
  /** Ranks of the run. */
  source: number;
  target: number;
  /** Number among the frames of this pair of ranks, from 1; 0 for an acknowledgement alone. */
  serial: number;
  /** All frames of the other direction up to this number have arrived. */
  acknowledged: number;
  tag: number;
  /** Number of the message among those of its tag and pair. */
  message: number;
  /** Bytes of the whole message, and where in it this payload goes. */
  total: number;
  offset: number;
  /** Bytes of the payload. */
  length: number;
}

const FIELDS = [
  'source',
  'target',
  'serial',
  'acknowledged',
  'tag',
  'message',
  'total',
  'offset',
  'length',
] as const satisfies readonly (keyof FrameHeader)[];
const ACKNOWLEDGED = FIELDS.indexOf('acknowledged');

const words = (frame: Uint8Array): Uint32Array =>
  new Uint32Array(frame.buffer, frame.byteOffset, FRAME_HEADER_BYTES / 4);

export function writeHeader(frame: Uint8Array, header: FrameHeader): void {
  const at = words(frame);
  FIELDS.forEach((field, i) => {
    at[i] = header[field];
  });
}

/** Brings what a frame acknowledges up to date, when it is sent once more. */
export function acknowledge(frame: Uint8Array, upTo: number): void {
  words(frame)[ACKNOWLEDGED] = upTo;
}

export function readHeader(frame: Uint8Array): FrameHeader {
  const at = words(frame);
  return Object.fromEntries(FIELDS.map((field, i) => [field, at[i]])) as unknown as FrameHeader;
}

export const payloadOf = (frame: Uint8Array, { length }: FrameHeader): Uint8Array =>
  frame.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length);
