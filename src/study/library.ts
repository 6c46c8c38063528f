/** The studies that come with fathom, and those of one's own. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.js';
import { readJsonFile } from '../files.js';
import { parseStudy, type Study } from './schema.js';

/** studies/ of the package, seen from src/ and from dist/ alike. */
const FOLDER = fileURLToPath(new URL('../../studies', import.meta.url));

export interface StudyFile {
  file: string;
  study: Study;
}

/** Those that come with fathom, by name. @throws UserError where one is damaged */
export function shippedStudies(): StudyFile[] {
  const names = fs.readdirSync(FOLDER).filter((name) => name.endsWith('.json'));
  return names.sort().map((name) => openFile(path.join(FOLDER, name)));
}

/** @param given a file, or the name of a study that comes with fathom. @throws UserError */
export function openStudy(given: string): StudyFile {
  if (fs.existsSync(given)) return openFile(given);
  const shipped = path.join(FOLDER, `${given}.json`);
  if (/^[a-z0-9.-]+$/.test(given) && fs.existsSync(shipped)) return openFile(shipped);
  const known = shippedStudies().map(({ study }) => study.name);
  throw new UserError(`there is no study ${given}: name a file, or one of ${known.join(', ')}`);
}

const openFile = (file: string): StudyFile => ({ file, study: parseStudy(readJsonFile(file), file) });
