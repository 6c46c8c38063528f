/**
 * The results folder of a study:
 *
 *   study.json               the study and the digest of its runs
 *   results/VARIANT.SEED.json  one record per run, there as soon as the run has ended
 *   report.json, report.html   what follows from them
 *   work/                    runs in progress, the tokenised corpus; removed when all runs are done
 */
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { readJsonFile, withFileErrors, writeFileAtomicallySync, writeFully } from '../files.js';
import { describeIssues } from '../spec/model.js';
import { machineSchema } from './machine.js';
import type { StudyPlan } from './plan.js';
import { parseStudy, type Study } from './schema.js';

const FILE = 'study.json';
const RESULTS = 'results';

const headerSchema = z.strictObject({ version: z.literal(1), digest: z.string(), study: z.unknown() });

/** Steps and values, pairwise. */
const curveSchema = z.array(z.tuple([z.number(), z.number()]));

const recordSchema = z.strictObject({
  version: z.literal(1),
  /** Of the study's runs. */
  digest: z.string(),
  variant: z.string(),
  seed: z.number(),
  /** Why there are no figures; absent where the run is complete. */
  error: z.string().optional(),
  /** Metrics by name; those that the run does not tell are left out. */
  metrics: z.record(z.string(), z.number()),
  curves: z.strictObject({ loss: curveSchema, validationLoss: curveSchema }),
  machine: machineSchema,
  threads: z.number(),
  /** When it ended, ISO 8601. */
  finished: z.string(),
});

/** What is kept of a run. */
export type RunRecord = z.infer<typeof recordSchema>;

/** One run of a study. */
export interface RunKey {
  variant: string;
  seed: number;
}

export class ResultsFolder {
  private constructor(
    readonly folder: string,
    readonly study: Study,
    readonly digest: string,
  ) {}

  /**
   * Makes the folder, or goes on with one that holds the same study, whose seeds may be others.
   * @throws UserError where it holds another
   */
  static start(folder: string, { study, digest }: StudyPlan): ResultsFolder {
    const present = presentStudy(folder);
    if (present && present.digest !== digest) {
      throw new UserError(
        `${folder} holds results of another study ("${present.study.name}", or this one before it was changed); ` +
          'choose another --out, or remove the folder',
      );
    }
    const seeds = [...new Set([...(present?.study.seeds ?? []), ...study.seeds])].sort((a, b) => a - b);
    const opened = new ResultsFolder(folder, { ...study, seeds }, digest);
    writeText(path.join(folder, FILE), json({ version: 1, digest, study: opened.study }));
    return opened;
  }

  /** @throws UserError where `folder` holds no study */
  static open(folder: string): ResultsFolder {
    const file = path.join(folder, FILE);
    if (!fs.existsSync(file))
      throw new UserError(`${folder} holds no results of a study (${FILE} is missing)`);
    const header = headerSchema.safeParse(readJsonFile(file));
    if (!header.success)
      throw new UserError(`${file} is no study of this version: ${describeIssues(header.error)}`);
    return new ResultsFolder(folder, parseStudy(header.data.study, file), header.data.digest);
  }

  /** Where runs in progress live. */
  get work(): string {
    return path.join(this.folder, 'work');
  }

  read(key: RunKey): RunRecord | undefined {
    const file = this.fileOf(key);
    return fs.existsSync(file) ? this.readFile(file) : undefined;
  }

  /** All records, in the order of variants and seeds. */
  records(): RunRecord[] {
    const folder = path.join(this.folder, RESULTS);
    const names = fs.existsSync(folder)
      ? fs.readdirSync(folder).filter((name) => name.endsWith('.json'))
      : [];
    const order = this.study.variants.map(({ name }) => name);
    return names
      .map((name) => this.readFile(path.join(folder, name)))
      .sort((a, b) => order.indexOf(a.variant) - order.indexOf(b.variant) || a.seed - b.seed);
  }

  write(record: RunRecord): void {
    writeText(this.fileOf(record), json(record));
  }

  writeReport(report: object, page: string): void {
    writeText(path.join(this.folder, 'report.json'), json(report));
    writeText(path.join(this.folder, 'report.html'), page);
  }

  /** Removes what runs in progress have left. */
  removeWork(): void {
    withFileErrors('remove', this.work, () => fs.rmSync(this.work, { recursive: true, force: true }));
  }

  private fileOf({ variant, seed }: RunKey): string {
    return path.join(this.folder, RESULTS, `${variant}.${seed}.json`);
  }

  private readFile(file: string): RunRecord {
    const parsed = recordSchema.safeParse(readJsonFile(file));
    if (!parsed.success) {
      throw new UserError(
        `${file} is no result of this version: ${describeIssues(parsed.error)}; remove it to run again`,
      );
    }
    if (parsed.data.digest !== this.digest) {
      throw new UserError(`${file} is a result of another study; remove it`);
    }
    return parsed.data;
  }
}

/** The study in `folder`; undefined where it is empty or not there. @throws UserError where it holds something else */
function presentStudy(folder: string): ResultsFolder | undefined {
  if (fs.existsSync(path.join(folder, FILE))) return ResultsFolder.open(folder);
  const names = fs.existsSync(folder) ? withFileErrors('read', folder, () => fs.readdirSync(folder)) : [];
  if (names.length === 0) return undefined;
  throw new UserError(`${folder} is not empty and holds no study; choose another --out`);
}

const json = (content: object): string => `${JSON.stringify(content)}\n`;

/** Creates or replaces a file; never half of it. */
export const writeText = (file: string, text: string): void =>
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(text), 0));
