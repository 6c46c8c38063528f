import type { Counter } from '../transport/transport.js';
import {
  acknowledge,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  PAYLOAD_BYTES,
  payloadOf,
  writeHeader,
} from './frame.js';

/** A message that comes in, whole or not. */
export interface Incoming {
  /** Where it goes, once somebody has asked for it; before that it is kept in memory of its own. */
  into: Uint8Array | undefined;
  /** Bytes there so far, and in all; -1 until a frame has said it. */
  got: number;
  total: number;
  arrived: Counter | undefined;
}

/** A frame that has not been acknowledged. */
export interface Held {
  readonly serial: number;
  readonly frame: Uint8Array;
}

/** Frames after which an acknowledgement is sent by itself, where none goes along with other frames. */
const MOST_UNTOLD = 32;

/**
 * All messages between this rank and one of another node. Frames carry numbers and are kept until they are acknowledged, so
 * that they can be sent again on another way; what comes twice is dropped.
 */
export class Conversation {
  /** Frames sent and not acknowledged, in order. */
  held: Held[] = [];
  /** Frames that arrived since the last acknowledgement. */
  untold = 0;
  private sent = 0;
  /** All frames up to here have arrived, and some beyond. */
  private arrivedTo = 0;
  private readonly beyond = new Set<number>();
  /** Messages sent and asked for, by tag. */
  private readonly sentOf = new Map<number, number>();
  private readonly askedOf = new Map<number, number>();
  private readonly incoming = new Map<string, Incoming>();

  constructor(
    private readonly rank: number,
    readonly peer: number,
  ) {}

  /** Cuts a message into frames, which are held. @param allocate gives memory for a frame */
  send(data: Uint8Array, tag: number, allocate: (bytes: number) => Uint8Array): Held[] {
    const message = this.sentOf.get(tag) ?? 0;
    this.sentOf.set(tag, message + 1);
    const total = data.length;
    const frames: Held[] = [];
    for (let offset = 0; offset === 0 || offset < total; offset += PAYLOAD_BYTES) {
      const length = Math.min(PAYLOAD_BYTES, total - offset);
      const frame = allocate(FRAME_HEADER_BYTES + length);
      const serial = ++this.sent;
      writeHeader(frame, { ...this.ends(), serial, tag, message, total, offset, length });
      frame.set(data.subarray(offset, offset + length), FRAME_HEADER_BYTES);
      frames.push({ serial, frame });
    }
    this.held.push(...frames);
    this.untold = 0;
    return frames;
  }

  /** The next message of a tag goes to `into`, which may be longer. */
  ask(into: Uint8Array, tag: number, arrived: Counter | undefined): Incoming {
    const number = this.askedOf.get(tag) ?? 0;
    this.askedOf.set(tag, number + 1);
    const key = `${tag}/${number}`;
    const early = this.incoming.get(key);
    const incoming = early ?? { into, got: 0, total: -1, arrived };
    if (early) {
      into.set(early.into!.subarray(0, early.total));
      Object.assign(early, { into, arrived });
      this.finish(key, early);
    } else this.incoming.set(key, incoming);
    return incoming;
  }

  /** Takes a frame. @returns frames that need not be held any more */
  take(frame: Uint8Array, header: FrameHeader): Held[] {
    const { serial, acknowledged } = header;
    if (serial > 0) {
      this.untold++;
      if (this.isNew(serial)) this.deliver(payloadOf(frame, header), header);
    }
    const still = this.held.findIndex((one) => one.serial > acknowledged);
    return this.held.splice(0, still < 0 ? this.held.length : still);
  }

  /** Frames that were held, to be sent again. */
  again(): Held[] {
    for (const { frame } of this.held) acknowledge(frame, this.arrivedTo);
    return this.held;
  }

  /** An acknowledgement, where one is due. @param soon even for a few frames */
  acknowledgement(soon: boolean): Uint8Array | undefined {
    if (this.untold < (soon ? 1 : MOST_UNTOLD)) return undefined;
    this.untold = 0;
    const frame = new Uint8Array(FRAME_HEADER_BYTES);
    writeHeader(frame, { ...this.ends(), serial: 0, tag: 0, message: 0, total: 0, offset: 0, length: 0 });
    return frame;
  }

  private ends(): Pick<FrameHeader, 'source' | 'target' | 'acknowledged'> {
    return { source: this.rank, target: this.peer, acknowledged: this.arrivedTo };
  }

  private isNew(serial: number): boolean {
    if (serial <= this.arrivedTo || this.beyond.has(serial)) return false;
    this.beyond.add(serial);
    while (this.beyond.delete(this.arrivedTo + 1)) this.arrivedTo++;
    return true;
  }

  private deliver(payload: Uint8Array, { tag, message, total, offset }: FrameHeader): void {
    const key = `${tag}/${message}`;
    let incoming = this.incoming.get(key);
    if (!incoming) {
      incoming = { into: undefined, got: 0, total, arrived: undefined };
      this.incoming.set(key, incoming);
    }
    incoming.total = total;
    incoming.into ??= new Uint8Array(total);
    if (total > incoming.into.length) {
      throw new Error(`a message of ${total} bytes came where ${incoming.into.length} were expected`);
    }
    incoming.into.set(payload, offset);
    incoming.got += payload.length;
    if ((this.askedOf.get(tag) ?? 0) > message) this.finish(key, incoming);
  }

  private finish(key: string, incoming: Incoming): void {
    if (incoming.got !== incoming.total) return;
    this.incoming.delete(key);
    incoming.arrived?.add(1);
  }
}

export const isWhole = ({ got, total }: Incoming): boolean => got === total;
