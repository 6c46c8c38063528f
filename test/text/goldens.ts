import fs from 'node:fs';
import path from 'node:path';

const FOLDER = path.join(import.meta.dirname, '../goldens/text');

/** The path of a golden file made by scripts/goldens/tokenizer.py. */
export function goldenPath(name: string): string {
  return path.join(FOLDER, name);
}

export function readGolden<T>(name: string): T {
  return JSON.parse(fs.readFileSync(goldenPath(name), 'utf8')) as T;
}

/** What Hugging Face gives for `texts`; see `answers` in the script for the nulls. */
export interface Answers {
  texts: string[];
  ids: number[][];
  decoded: (string | null)[];
  skipped: (string | null)[];
}
