/**
 * ggml's block formats, as `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref` of llama.cpp (ggml/src/ggml-quants.c)
 * define them: 32 consecutive values of a row share one scale in FP16. All arithmetic is FP32, as there, so that codes
 * are the same bit for bit.
 */
import { FP16 } from './minifloat.js';

/** Values of a block. */
export const BLOCK = 32;

/** Bytes of a block: the scale, then 32 codes of 8 bits, or 16 bytes of two codes. */
export const Q8_0_BYTES = 2 + BLOCK;
export const Q4_0_BYTES = 2 + BLOCK / 2;

const { fround, abs } = Math;

/** Blocks of `values` (a multiple of 32 of them): code = round(x / d), half away from zero, d = max |x| / 127. */
export function encodeQ8(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / BLOCK) * Q8_0_BYTES);
  for (let at = 0, to = 0; at < values.length; at += BLOCK, to += Q8_0_BYTES) {
    let largest = 0;
    for (let i = at; i < at + BLOCK; i++) largest = Math.max(largest, abs(values[i]!));
    const scale = fround(largest / 127);
    const inverse = scale === 0 ? 0 : fround(1 / scale);
    writeScale(out, to, scale);
    for (let i = 0; i < BLOCK; i++) {
      const x = fround(values[at + i]! * inverse);
      out[to + 2 + i] = x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5);
    }
  }
  return out;
}

/**
 * Blocks of `values` (a multiple of 32 of them): code = min(15, trunc(x / d + 8.5)), d = x_max / -8 for the x_max of largest
 * magnitude, sign and all. Byte i holds values i (low half) and i + 16.
 */
export function encodeQ4(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / BLOCK) * Q4_0_BYTES);
  for (let at = 0, to = 0; at < values.length; at += BLOCK, to += Q4_0_BYTES) {
    const scale = fround(extreme(values, at) / -8);
    const inverse = scale === 0 ? 0 : fround(1 / scale);
    writeScale(out, to, scale);
    for (let i = 0; i < BLOCK / 2; i++) {
      const low = fround(fround(values[at + i]! * inverse) + 8.5);
      const high = fround(fround(values[at + i + BLOCK / 2]! * inverse) + 8.5);
      out[to + 2 + i] = Math.min(15, low | 0) | (Math.min(15, high | 0) << 4);
    }
  }
  return out;
}

/** The value of largest magnitude in a block, the first of equals. */
function extreme(values: Float32Array, at: number): number {
  let [largest, value] = [0, 0];
  for (let i = at; i < at + BLOCK; i++) {
    const magnitude = abs(values[i]!);
    if (magnitude > largest) {
      largest = magnitude;
      value = values[i]!;
    }
  }
  return value;
}

function writeScale(out: Uint8Array, at: number, scale: number): void {
  const code = FP16.encode(scale);
  out[at] = code & 0xff;
  out[at + 1] = code >>> 8;
}

const readScale = (bytes: Uint8Array, at: number): number => FP16.decode(bytes[at]! | (bytes[at + 1]! << 8));

/** Values of Q8_0 blocks: d · code. */
export function decodeQ8(bytes: Uint8Array): Float32Array {
  const out = new Float32Array((bytes.length / Q8_0_BYTES) * BLOCK);
  for (let at = 0, to = 0; at < bytes.length; at += Q8_0_BYTES, to += BLOCK) {
    const scale = readScale(bytes, at);
    for (let i = 0; i < BLOCK; i++) out[to + i] = scale * ((bytes[at + 2 + i]! << 24) >> 24);
  }
  return out;
}

/** Values of Q4_0 blocks: d · (code − 8). */
export function decodeQ4(bytes: Uint8Array): Float32Array {
  const out = new Float32Array((bytes.length / Q4_0_BYTES) * BLOCK);
  for (let at = 0, to = 0; at < bytes.length; at += Q4_0_BYTES, to += BLOCK) {
    const scale = readScale(bytes, at);
    for (let i = 0; i < BLOCK / 2; i++) {
      const pair = bytes[at + 2 + i]!;
      out[to + i] = scale * ((pair & 15) - 8);
      out[to + i + BLOCK / 2] = scale * ((pair >>> 4) - 8);
    }
  }
  return out;
}
