/** From a corpus to token ids ready for training: tokenised once, kept on disk, split into training and validation. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { UserError } from '../errors.js';
import { Random } from '../numerics/random.js';
import type { Progress } from './bpe.js';
import { type CorpusSource, corpusDigest, corpusFiles, readDocuments } from './corpus.js';
import type { Tokenizer } from './tokenizer.js';
import { type TokenDocuments, TokenFile, writeTokenFile } from './tokens.js';

export interface CorpusRequest {
  source: CorpusSource;
  tokenizer: Tokenizer;
  /** Where token files are kept; made when it does not exist. */
  cacheDir: string;
  /** Share of the documents held out, above 0 and below 1. */
  validationFraction: number;
  /** Decides which documents are held out. */
  seed: number;
  onProgress?: Progress;
}

export interface PreparedCorpus {
  train: TokenDocuments;
  validation: TokenDocuments;
  file: TokenFile;
  /** Whether the token file was there already. */
  reused: boolean;
  close(): void;
}

/**
 * Tokenises a corpus, or reuses the token file of an earlier time when text and tokenizer are the same, and
 * splits it. UserErrors are those of the corpus and of the file system.
 */
export async function prepareCorpus(request: CorpusRequest): Promise<PreparedCorpus> {
  const { source, tokenizer, cacheDir, validationFraction, seed } = request;
  const sourceSha256 = corpusDigest(source);
  const target = path.join(cacheDir, `tokens-${cacheKey(sourceSha256, tokenizer.sha256)}.bin`);
  const known = openIfWhole(target, sourceSha256, tokenizer);
  if (known === undefined) {
    const origin = { vocabSize: tokenizer.vocabSize, tokenizerSha256: tokenizer.sha256, sourceSha256 };
    await writeTokenFile(target, encodeDocuments(request), origin);
  }
  const file = known ?? TokenFile.open(target);
  const parts = splitDocuments(file.documents(), validationFraction, seed);
  return { ...parts, file, reused: known !== undefined, close: () => file.close() };
}

function cacheKey(...digests: string[]): string {
  return createHash('sha256').update(digests.join(' ')).digest('hex').slice(0, 16);
}

/** The token file from an earlier time; undefined when there is none, or it is damaged or of something else. */
function openIfWhole(target: string, sourceSha256: string, tokenizer: Tokenizer): TokenFile | undefined {
  if (!fs.existsSync(target)) return undefined;
  try {
    const file = TokenFile.open(target);
    const { header } = file;
    if (header.sourceSha256 === sourceSha256 && header.tokenizerSha256 === tokenizer.sha256) return file;
    file.close();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
  }
  return undefined;
}

async function* encodeDocuments({
  source,
  tokenizer,
  onProgress,
}: CorpusRequest): AsyncGenerator<Int32Array> {
  const total = corpusFiles(source).reduce((sum, file) => sum + fs.statSync(file).size, 0);
  let done = 0;
  for await (const document of readDocuments(source)) {
    yield tokenizer.encode(document, { addSpecialTokens: false });
    done += Buffer.byteLength(document);
    onProgress?.(Math.min(done, total), total, 'encoding (bytes)');
  }
}

/**
 * Holds out documents chosen by `seed`: the nearest whole number to the fraction, at least one, and at least one stays for training. A
 * single document is cut by position instead, its last part held out. Both parts keep the documents' order.
 */
export function splitDocuments(
  documents: TokenDocuments,
  fraction: number,
  seed: number,
): { train: TokenDocuments; validation: TokenDocuments } {
  if (!(fraction > 0 && fraction < 1)) {
    throw new UserError(`validation fraction ${fraction}: it must lie between 0 and 1, for example 0.05`);
  }
  const count = documents.starts.length;
  if (count === 1) return splitByPosition(documents, fraction);
  const order = Random.stream(seed, 'validation').shuffle(Array.from({ length: count }, (_, i) => i));
  const held = new Set(order.slice(0, clamp(Math.round(count * fraction), 1, count - 1)));
  const pick = (keep: (i: number) => boolean): TokenDocuments => ({
    source: documents.source,
    starts: documents.starts.filter((_, i) => keep(i)),
    ends: documents.ends.filter((_, i) => keep(i)),
  });
  return { train: pick((i) => !held.has(i)), validation: pick((i) => held.has(i)) };
}

function splitByPosition({ source, starts, ends }: TokenDocuments, fraction: number) {
  const length = ends[0] - starts[0];
  const border = ends[0] - clamp(Math.round(length * fraction), 1, Math.max(1, length - 1));
  const part = (from: number, to: number): TokenDocuments => ({
    source,
    starts: Float64Array.of(from),
    ends: Float64Array.of(to),
  });
  return { train: part(starts[0], border), validation: part(border, ends[0]) };
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
