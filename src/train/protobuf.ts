/** Fields of protobuf messages [https://protobuf.dev/programming-guides/encoding], as far as event files need them. */

/** Wire types. */
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const key = (field: number, wire: number): Uint8Array => base128((field << 3) | wire);

/** Seven bits a byte, lowest first; `value` is a non-negative safe integer. */
function base128(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
  return Uint8Array.from(out);
}

/** An integer or enum field. */
export const varint = (field: number, value: number): Uint8Array =>
  Buffer.concat([key(field, VARINT), base128(value)]);

/** A double field. */
export function fixed64(field: number, value: number): Uint8Array {
  const out = Buffer.alloc(8);
  out.writeDoubleLE(value);
  return Buffer.concat([key(field, FIXED64), out]);
}

/** A float field. */
export function fixed32(field: number, value: number): Uint8Array {
  const out = Buffer.alloc(4);
  out.writeFloatLE(value);
  return Buffer.concat([key(field, FIXED32), out]);
}

/** A field that holds a message of these fields. */
export function message(field: number, ...fields: readonly Uint8Array[]): Uint8Array {
  const body = Buffer.concat(fields);
  return Buffer.concat([key(field, BYTES), base128(body.length), body]);
}

/** A string field. */
export const text = (field: number, value: string): Uint8Array => message(field, Buffer.from(value, 'utf8'));
