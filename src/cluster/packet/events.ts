import { LateEvents } from './late-events.js';

/**
 * Records of 32 bytes and the order of their times. A record is a packet, a port's wake-up, a timer or a returned credit; it
 * lies in one list at a time, so that its link is part of it and nothing is allocated for an event.
 *
 * | int | 0, 1             | 2    | 3    | 4        | 5      | 6     | 7        |
 * | --- | ---------------- | ---- | ---- | -------- | ------ | ----- | -------- |
 * |     | time, a double   | next | flow | position | buffer | bytes | sequence |
 */
export const STRIDE = 8;
export const NEXT = 2;
export const FLOW = 3;
export const POSITION = 4;
export const BUFFER = 5;
export const BYTES = 6;
export const SEQUENCE = 7;
/** Bytes of a record, which is all that a packet in flight takes, and doubles in it. */
export const RECORD_BYTES = 4 * STRIDE;
export const DOUBLES = STRIDE / 2;

/**
 * Events by time, those of a time in the order in which they were pushed. A wheel of S slots, `width` picoseconds each, holds
 * those less than a turn away, unsorted; a slot is sorted when its turn comes. Later ones lie in a heap.
 */
export class EventQueue {
  ints: Int32Array;
  doubles: Float64Array;
  /** Picoseconds. */
  now = 0;
  /** Free records, chained, and where those begin that were never used. */
  private free = -1;
  private used: number;
  /** [2S] first and last record of each slot; -1 where there is none. */
  private readonly slots: Int32Array;
  /** [S/32] a bit for each slot that holds something; [S/1024] one for each word of those. */
  private readonly filled: Int32Array;
  private readonly summary: Int32Array;
  private readonly mask: number;
  private readonly perWidth: number;
  /** The slot whose turn it is, counted from time 0 and on the wheel. */
  private tick = 0;
  private slot = 0;
  /** What is left of it, sorted. */
  private chain = -1;
  /** Pushed for this very moment. */
  private nowFirst = -1;
  private nowLast = -1;
  private readonly late = new LateEvents();
  /** The slot of its first, counted from time 0. */
  private lateTick = Infinity;

  /**
   * @param reserved records 0..reserved-1 that the caller keeps for ever
   * @param width picoseconds, a power of two
   * @param slots a power of two, 1,024 or more
   */
  constructor(reserved: number, width: number, slots: number) {
    const records = Math.max(1024, 2 * reserved);
    const buffer = new ArrayBuffer(records * RECORD_BYTES);
    this.ints = new Int32Array(buffer);
    this.doubles = new Float64Array(buffer);
    this.used = reserved;
    this.slots = new Int32Array(2 * slots).fill(-1);
    this.filled = new Int32Array(slots / 32);
    this.summary = new Int32Array(slots / 1024);
    this.mask = slots - 1;
    this.perWidth = 1 / width;
  }

  /** Bytes of all records that were ever in use at once. */
  get recordBytes(): number {
    return this.used * RECORD_BYTES;
  }

  /** @returns a record of the caller's; what is in it is left over */
  take(): number {
    const id = this.free;
    if (id >= 0) {
      this.free = this.ints[id * STRIDE + NEXT]!;
      return id;
    }
    if ((this.used + 1) * STRIDE > this.ints.length) this.grow();
    return this.used++;
  }

  give(id: number): void {
    this.ints[id * STRIDE + NEXT] = this.free;
    this.free = id;
  }

  private grow(): void {
    const buffer = new ArrayBuffer(2 * this.ints.byteLength);
    const ints = new Int32Array(buffer);
    ints.set(this.ints);
    this.ints = ints;
    this.doubles = new Float64Array(buffer);
  }

  /** @param time picoseconds, `now` or later */
  push(id: number, time: number): void {
    this.doubles[id * DOUBLES] = time;
    if (time <= this.now) {
      this.pushNow(id);
      return;
    }
    const distance = Math.floor(time * this.perWidth) - this.tick;
    if (distance > this.mask) this.pushLate(id, time);
    else if (distance > 0) this.append(id, (this.slot + distance) & this.mask);
    else this.insert(id, time);
  }

  private pushLate(id: number, time: number): void {
    this.late.push(id, time);
    this.lateTick = Math.floor(this.late.nextTime * this.perWidth);
  }

  private pushNow(id: number): void {
    this.ints[id * STRIDE + NEXT] = -1;
    if (this.nowFirst < 0) this.nowFirst = id;
    else this.ints[this.nowLast * STRIDE + NEXT] = id;
    this.nowLast = id;
  }

  private append(id: number, slot: number): void {
    const { slots, ints } = this;
    ints[id * STRIDE + NEXT] = -1;
    const last = slots[2 * slot + 1]!;
    slots[2 * slot + 1] = id;
    if (last >= 0) {
      ints[last * STRIDE + NEXT] = id;
      return;
    }
    slots[2 * slot] = id;
    this.filled[slot >>> 5]! |= 1 << (slot & 31);
    this.summary[slot >>> 10]! |= 1 << ((slot >>> 5) & 31);
  }

  /** Into what is left of the slot whose turn it is. */
  private insert(id: number, time: number): void {
    const { ints, doubles } = this;
    let before = -1;
    let after = this.chain;
    while (after >= 0 && doubles[after * DOUBLES]! <= time) {
      before = after;
      after = ints[after * STRIDE + NEXT]!;
    }
    ints[id * STRIDE + NEXT] = after;
    if (before < 0) this.chain = id;
    else ints[before * STRIDE + NEXT] = id;
  }

  /** @returns the next record, at `now`; -1 when there is none */
  pop(): number {
    if (this.chain < 0 && this.nowFirst < 0 && !this.turn()) return -1;
    const id = this.chain;
    if (this.nowFirst >= 0 && (id < 0 || this.doubles[id * DOUBLES]! > this.now)) return this.popNow();
    this.chain = this.ints[id * STRIDE + NEXT]!;
    this.now = this.doubles[id * DOUBLES]!;
    return id;
  }

  private popNow(): number {
    const id = this.nowFirst;
    this.nowFirst = this.ints[id * STRIDE + NEXT]!;
    return id;
  }

  /** On to the next slot that holds something. @returns false when none does */
  private turn(): boolean {
    const next = this.nextSlot();
    const tick = next < 0 ? Infinity : this.tick + ((next - this.slot) & this.mask);
    if (tick <= this.lateTick && next >= 0) {
      this.slot = next;
      this.tick = tick;
    } else if (this.lateTick < Infinity) {
      this.slot = (this.slot + ((this.lateTick - this.tick) % (this.mask + 1))) & this.mask;
      this.tick = this.lateTick;
    } else return false;
    while (this.lateTick - this.tick <= this.mask) this.fetchLate();
    this.open();
    return true;
  }

  private fetchLate(): void {
    const slot = (this.slot + this.lateTick - this.tick) & this.mask;
    this.append(this.late.pop(), slot);
    this.lateTick = Math.floor(this.late.nextTime * this.perWidth);
  }

  /** Takes the slot's events and sorts them where they are not. */
  private open(): void {
    const { slot, slots, ints, doubles } = this;
    const first = slots[2 * slot]!;
    slots[2 * slot] = -1;
    slots[2 * slot + 1] = -1;
    this.filled[slot >>> 5]! &= ~(1 << (slot & 31));
    if (this.filled[slot >>> 5] === 0) this.summary[slot >>> 10]! &= ~(1 << ((slot >>> 5) & 31));
    this.chain = first;
    let at = first;
    for (let next = ints[at * STRIDE + NEXT]!; next >= 0; at = next, next = ints[at * STRIDE + NEXT]!) {
      if (doubles[next * DOUBLES]! < doubles[at * DOUBLES]!) {
        this.chain = this.sorted(first, this.lengthOf(first));
        return;
      }
    }
  }

  private lengthOf(first: number): number {
    let length = 0;
    for (let at = first; at >= 0; at = this.ints[at * STRIDE + NEXT]!) length++;
    return length;
  }

  /** The first `length` of a chain, stably sorted, as a chain of their own. */
  private sorted(first: number, length: number): number {
    const { ints } = this;
    if (length === 1) {
      ints[first * STRIDE + NEXT] = -1;
      return first;
    }
    const half = length >> 1;
    let second = first;
    for (let i = 0; i < half; i++) second = ints[second * STRIDE + NEXT]!;
    // The first half is cut off by sorting it, so the second is found before.
    const left = this.sorted(first, half);
    return this.merged(left, this.sorted(second, length - half));
  }

  private merged(left: number, right: number): number {
    const { ints, doubles } = this;
    let [a, b] = [left, right];
    const first = doubles[b * DOUBLES]! < doubles[a * DOUBLES]! ? b : a;
    let last = -1;
    while (a >= 0 && b >= 0) {
      const next = doubles[b * DOUBLES]! < doubles[a * DOUBLES]! ? b : a;
      if (last >= 0) ints[last * STRIDE + NEXT] = next;
      last = next;
      if (next === a) a = ints[a * STRIDE + NEXT]!;
      else b = ints[b * STRIDE + NEXT]!;
    }
    ints[last * STRIDE + NEXT] = a >= 0 ? a : b;
    return first;
  }

  /** The filled slot that comes next in the turn; -1 where there is none. */
  private nextSlot(): number {
    const from = this.slot + 1;
    const found = from > this.mask ? -1 : this.filledFrom(from);
    return found >= 0 ? found : this.filledFrom(0);
  }

  private filledFrom(slot: number): number {
    const word = slot >>> 5;
    const bits = this.filled[word]! & (-1 << (slot & 31));
    if (bits !== 0) return (word << 5) + lowestBit(bits);
    const next = bitFrom(this.summary, word + 1);
    return next < 0 ? -1 : (next << 5) + lowestBit(this.filled[next]!);
  }
}

const lowestBit = (bits: number): number => 31 - Math.clz32(bits & -bits);

/** The first set bit at `from` or after; -1 where there is none. */
function bitFrom(words: Int32Array, from: number): number {
  let word = from >>> 5;
  if (word >= words.length) return -1;
  let bits = words[word]! & (-1 << (from & 31));
  while (bits === 0) {
    if (++word >= words.length) return -1;
    bits = words[word]!;
  }
  return (word << 5) + lowestBit(bits);
}
