/**
 * The byte-level alphabet of GPT-2 (Radford et al. 2019), which DeepSeek-V3, Llama 3 and every byte-level
 * `tokenizer.json` use: each of the 256 bytes is written as one printable character, so that any text at
 * all, and any byte sequence that is no text, has a spelling in the vocabulary.
 *
 * Printable ASCII and Latin-1 stand for themselves; the other 68 bytes take U+0100 upwards, in byte order.
 */

/** Byte ranges that stand for themselves: `!`..`~`, `¡`..`¬`, `®`..`ÿ`. */
const PRINTABLE: readonly (readonly [number, number])[] = [
  [0x21, 0x7e],
  [0xa1, 0xac],
  [0xae, 0xff],
];

/** `BYTE_TO_CHAR[byte]` is the character that spells it. */
export const BYTE_TO_CHAR: readonly string[] = spellBytes();

const CHAR_TO_BYTE = new Map(BYTE_TO_CHAR.map((char, byte) => [char, byte]));
const encoder = new TextEncoder();

function spellBytes(): string[] {
  let next = 0x100;
  const isPrintable = (byte: number) => PRINTABLE.some(([low, high]) => byte >= low && byte <= high);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
}

/**
 * The bytes that a token of a byte-level vocabulary stands for. A token with a character outside the alphabet
 * (an added token such as `<｜User｜>`) stands for its own UTF-8, as in Hugging Face's decoder.
 */
export function tokenBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (char) => CHAR_TO_BYTE.get(char));
  return bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
}
