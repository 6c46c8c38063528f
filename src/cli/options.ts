/** Values of options, checked as they are parsed; a wrong one ends the command with exit code 2. */
import { InvalidArgumentError } from 'commander';

/** A parser for an integer option within `min`..`max`. */
export function integer(min = 0, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be an integer ${range(min, max)}.`);
  };
}

/** A parser for a decimal number within `min`..`max`. */
export function real(min: number, max = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
    if (Number.isFinite(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a number ${range(min, max)}.`);
  };
}

/** A size in bytes: 64, 4KiB, 1.5MiB, 16GiB. */
export function byteSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(?: ?(B|KiB|MiB|GiB))?$/.exec(text);
  const size = match ? Number(match[1]) * 1024 ** ['B', 'KiB', 'MiB', 'GiB'].indexOf(match[2] ?? 'B') : 0;
  if (size >= 1) return size;
  throw new InvalidArgumentError('It must be a size in bytes of at least 1, as in 64, 4KiB, 16GiB.');
}

/** Token ids separated by commas or white space, as `tokenizer encode` prints them. */
export function tokenIds(text: string): number[] {
  const words = text.split(/[\s,]+/).filter((word) => word !== '');
  const wrong = words.find((word) => !/^\d{1,9}$/.test(word));
  if (words.length > 0 && wrong === undefined) return words.map(Number);
  const what = wrong === undefined ? 'It holds no token id' : `"${wrong}" is no token id`;
  throw new InvalidArgumentError(`${what}; write ids as in 12,7,301.`);
}

/** Words separated by commas. */
export const words = (text: string): string[] => text.split(',').map((word) => word.trim());

const range = (min: number, max: number): string =>
  max < Number.MAX_SAFE_INTEGER ? `from ${min} to ${max}` : `of at least ${min}`;
