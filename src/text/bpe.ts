/**
 * Training of a byte-level BPE vocabulary (Sennrich et al. 2016, over the bytes of GPT-2's alphabet).
 *
 * The text is cut into words by one regular expression, equal words are counted once, and then the most
 * frequent adjacent pair of symbols is merged until the vocabulary is full. Counts are kept up to date
 * incrementally: a merge touches only the words that contain its pair. Ties go to the pair with the lowest
 * ids, which is the rule of Hugging Face's BpeTrainer; given the same text, both learn the same merges.
 */
import { UserError } from '../errors.js';
import { BYTE_TO_CHAR } from './byte-level.js';

/**
 * Cuts text into words, in the dialect of `tokenizer.json` (Oniguruma). In the style of the Llama 3 and
 * DeepSeek-V3 patterns: English contractions; letters and their marks with one leading non-letter; up to three digits;
 * other signs with a leading space; line ends; other white space, its last blank left to the next word.
 */
export const WORD_PATTERN = [
  "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])",
  '[^\\r\\n\\p{L}\\p{M}\\p{N}]?[\\p{L}\\p{M}]+',
  '\\p{N}{1,3}',
  ' ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*',
  '\\s*[\\r\\n]+',
  '\\s+(?!\\S)',
  '\\s+',
].join('|');

/** The same pattern for JavaScript, whose `\s` has U+FEFF and lacks U+0085, unlike Oniguruma's. */
const WORD_REGEXP = new RegExp(
  WORD_PATTERN.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}'),
  'gu',
);

/** Called as work proceeds: `done` of `total` steps of `label`; `total` is 0 while it is unknown. */
export type Progress = (done: number, total: number, label: string) => void;

export interface BpeOptions {
  /** Tokens in all: special ones, 256 bytes, merges. Training stops earlier when no pair is frequent enough. */
  vocabSize: number;
  /** Special tokens, which take the ids from 0 upwards in this order. */
  specialTokens: readonly string[];
  /** A pair must occur this often to be merged; 2 by default. */
  minFrequency?: number;
  onProgress?: Progress;
}

/** A learned vocabulary: `tokens[id]` is spelled in the byte alphabet (special tokens as they are). */
export interface BpeVocabulary {
  tokens: string[];
  /** Pairs of token spellings, the earliest (strongest) merge first. */
  merges: [string, string][];
}

/**
 * Learns a vocabulary from documents. Throws a UserError when `vocabSize` leaves no room for the bytes and special tokens, or the
 * documents hold no text.
 */
export async function trainBpe(
  documents: Iterable<string> | AsyncIterable<string>,
  options: BpeOptions,
): Promise<BpeVocabulary> {
  const base = options.specialTokens.length + BYTE_TO_CHAR.length;
  if (!Number.isInteger(options.vocabSize) || options.vocabSize < base) {
    throw new UserError(
      `vocabulary size ${options.vocabSize} is too small: it must be an integer of at least ${base} ` +
        `(256 bytes and ${options.specialTokens.length} special tokens)`,
    );
  }
  const counts = await countWords(documents, options.onProgress);
  if (counts.size === 0) throw new UserError('cannot train a tokenizer: the documents hold no text');
  return new MergeLearner(counts, options).learn();
}

/** How often each word occurs, keyed by its text. */
async function countWords(
  documents: Iterable<string> | AsyncIterable<string>,
  onProgress?: Progress,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  let done = 0;
  for await (const document of documents) {
    for (const word of document.match(WORD_REGEXP) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
    onProgress?.(++done, 0, 'counting words');
  }
  return counts;
}

/** An adjacent pair of symbols: how often it occurs now, and the words that hold or once held it. */
interface Pair {
  left: number;
  right: number;
  count: number;
  words: number[];
}

/** The state of one training: words as runs of symbols in one array, pairs with their counts, a heap of pairs. */
class MergeLearner {
  private readonly tokens: string[];
  private readonly ids = new Map<string, number>();
  private readonly merges: [string, string][] = [];
  private readonly pairs = new Map<number, Pair>();
  private readonly heap = new PairHeap();
  /** Symbols of all words, one word after another; word `w` is `symbols[starts[w] .. starts[w] + lengths[w])`. */
  private symbols = new Int32Array(0);
  private readonly starts: number[] = [];
  private readonly lengths: number[] = [];
  private readonly counts: number[] = [];

  constructor(
    counts: Map<string, number>,
    private readonly options: BpeOptions,
  ) {
    // Ids of the alphabet in the order of its characters, as Hugging Face's trainer assigns them.
    this.tokens = [...options.specialTokens, ...[...BYTE_TO_CHAR].sort()];
    for (const [id, token] of this.tokens.entries()) this.ids.set(token, id);
    this.spellWords(counts);
    this.countPairs();
  }

  learn(): BpeVocabulary {
    const { vocabSize, minFrequency = 2, onProgress } = this.options;
    while (this.tokens.length < vocabSize) {
      const best = this.heap.popBest();
      if (best === undefined || best.count < Math.max(1, minFrequency)) break;
      this.merge(best);
      if (this.tokens.length % 64 === 0) onProgress?.(this.tokens.length, vocabSize, 'learning merges');
    }
    return { tokens: this.tokens, merges: this.merges };
  }

  private spellWords(counts: Map<string, number>): void {
    const byteIds = BYTE_TO_CHAR.map((char) => this.ids.get(char)!);
    const words = [...counts.keys()].map((word) => Buffer.from(word, 'utf8'));
    this.symbols = new Int32Array(words.reduce((sum, word) => sum + word.length, 0));
    let start = 0;
    for (const word of words) {
      this.starts.push(start);
      this.lengths.push(word.length);
      for (const byte of word) this.symbols[start++] = byteIds[byte];
    }
    this.counts.push(...counts.values());
  }

  private countPairs(): void {
    for (let word = 0; word < this.starts.length; word++) {
      const start = this.starts[word];
      const end = start + this.lengths[word];
      for (let i = start + 1; i < end; i++) this.add(this.symbols[i - 1], this.symbols[i], word);
    }
    for (const pair of this.pairs.values()) this.heap.push(pair);
  }

  /** Joins the pair to one symbol in every word that holds it. */
  private merge(pair: Pair): void {
    const token = this.tokens[pair.left] + this.tokens[pair.right];
    this.merges.push([this.tokens[pair.left], this.tokens[pair.right]]);
    const id = this.idOf(token);
    const grown = new Set<Pair>();
    this.pairs.delete(pairKey(pair.left, pair.right));
    pair.count = 0;
    for (const word of pair.words) this.mergeInWord(word, pair, id, grown);
    for (const changed of grown) this.heap.push(changed);
  }

  /** A merge may spell a special token that stands in the text as well: then it keeps the id that it has. */
  private idOf(token: string): number {
    const known = this.ids.get(token);
    if (known !== undefined) return known;
    this.ids.set(token, this.tokens.length);
    return this.tokens.push(token) - 1;
  }

  /** Rewrites one word in place, left to right, and moves the counts of the pairs around each merge. */
  private mergeInWord(word: number, { left, right }: Pair, merged: number, grown: Set<Pair>): void {
    const { symbols } = this;
    const start = this.starts[word];
    const end = start + this.lengths[word];
    let write = start;
    for (let read = start; read < end; read++) {
      if (symbols[read] !== left || read + 1 >= end || symbols[read + 1] !== right) {
        symbols[write++] = symbols[read];
        continue;
      }
      if (write > start) {
        this.subtract(symbols[write - 1], left, word);
        grown.add(this.add(symbols[write - 1], merged, word));
      }
      if (read + 2 < end) {
        this.subtract(right, symbols[read + 2], word);
        grown.add(this.add(merged, symbols[read + 2], word));
      }
      symbols[write++] = merged;
      read++;
    }
    this.lengths[word] = write - start;
  }

  private add(left: number, right: number, word: number): Pair {
    const key = pairKey(left, right);
    let pair = this.pairs.get(key);
    if (pair === undefined) {
      pair = { left, right, count: 0, words: [] };
      this.pairs.set(key, pair);
    }
    pair.count += this.counts[word];
    if (pair.words.at(-1) !== word) pair.words.push(word);
    return pair;
  }

  private subtract(left: number, right: number, word: number): void {
    const pair = this.pairs.get(pairKey(left, right));
    if (pair !== undefined) pair.count -= this.counts[word];
  }
}

/** One number per pair; ids stay below 2^26, so the key is an exact integer and orders as (left, right). */
function pairKey(left: number, right: number): number {
  return left * 0x4000000 + right;
}

/** A pair and the count that it had when it was put in the heap. */
interface HeapEntry {
  pair: Pair;
  count: number;
}

function isBefore(a: HeapEntry, b: HeapEntry): boolean {
  if (a.count !== b.count) return a.count > b.count;
  return pairKey(a.pair.left, a.pair.right) < pairKey(b.pair.left, b.pair.right);
}

/** A binary heap, most frequent pair first. Counts that fell since are noticed when an entry comes up. */
class PairHeap {
  private readonly entries: HeapEntry[] = [];

  push(pair: Pair): void {
    if (pair.count <= 0) return;
    const entry = { pair, count: pair.count };
    let hole = this.entries.push(entry) - 1;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (!isBefore(entry, this.entries[parent])) break;
      this.entries[hole] = this.entries[parent];
      hole = parent;
    }
    this.entries[hole] = entry;
  }

  /** Removes and returns the pair with the highest count now; undefined when none is left. */
  popBest(): Pair | undefined {
    while (this.entries.length > 0) {
      const { pair, count } = this.pop();
      if (pair.count === count) return pair;
      this.push(pair);
    }
    return undefined;
  }

  private pop(): HeapEntry {
    const top = this.entries[0];
    const last = this.entries.pop()!;
    if (this.entries.length > 0) this.siftDown(last);
    return top;
  }

  private siftDown(entry: HeapEntry): void {
    const { entries } = this;
    let hole = 0;
    for (let child = 1; child < entries.length; child = 2 * hole + 1) {
      if (child + 1 < entries.length && isBefore(entries[child + 1], entries[child])) child++;
      if (!isBefore(entries[child], entry)) break;
      entries[hole] = entries[child];
      hole = child;
    }
    entries[hole] = entry;
  }
}
