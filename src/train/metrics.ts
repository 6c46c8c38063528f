import fs from 'node:fs';
import path from 'node:path';
import { fileError, makeFolder, withFileErrors, writeFully } from '../files.js';

/** One line of `metrics.jsonl`: what was measured after `step` optimizer steps. Values that are not finite become null. */
export interface Metrics {
  step: number;
  [name: string]: number | string | readonly number[] | undefined;
}

/**
 * `metrics.jsonl`: one JSON object a line, appended with one write each. A killed process leaves at most the last
 * line torn; the next `open` removes it.
 */
export class MetricsLog {
  private constructor(
    private readonly file: string,
    private readonly descriptor: number,
    private size: number,
  ) {}

  /**
   * Opens or creates `file` to go on after `step`: lines of later steps and a torn last line are cut off.
   * @param step 0 for a new run, which empties the file
   * @throws UserError when the file cannot be written
   */
  static open(file: string, step = 0): MetricsLog {
    const descriptor = withFileErrors('write', file, () => {
      makeFolder(path.dirname(file));
      return fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
    });
    const log = new MetricsLog(file, descriptor, 0);
    log.rewind(step);
    return log;
  }

  /** Cuts off what was measured after `step`, as when a run goes back to a checkpoint. */
  rewind(step: number): void {
    this.guard(() => {
      this.size = bytesUpTo(fs.readFileSync(this.file), step);
      fs.ftruncateSync(this.descriptor, this.size);
    });
  }

  /** Appends one line. */
  append(entry: Metrics): void {
    const line = Buffer.from(`${JSON.stringify(entry)}\n`);
    this.guard(() => writeFully(this.descriptor, line, this.size));
    this.size += line.length;
  }

  close(): void {
    fs.closeSync(this.descriptor);
  }

  private guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      throw fileError('write', this.file, error);
    }
  }
}

/** All complete lines of a metrics file. @throws UserError when it cannot be read */
export function readMetrics(file: string): Metrics[] {
  const content = withFileErrors('read', file, () => fs.readFileSync(file));
  return [...lines(content)].map(({ entry }) => entry);
}

const bytesUpTo = (content: Buffer, step: number): number =>
  [...lines(content)].findLast(({ entry }) => entry.step <= step)?.end ?? 0;

/** Complete lines in order, up to the first that is none of ours; `end` is the byte after the line. */
function* lines(content: Buffer): Generator<{ entry: Metrics; end: number }> {
  for (let start = 0; start < content.length; ) {
    const newline = content.indexOf(0x0a, start);
    const entry = newline < 0 ? undefined : parse(content.toString('utf8', start, newline));
    if (!entry) return;
    yield { entry, end: newline + 1 };
    start = newline + 1;
  }
}

function parse(line: string): Metrics | undefined {
  try {
    const entry = JSON.parse(line) as Partial<Metrics> | null;
    return typeof entry?.step === 'number' ? (entry as Metrics) : undefined;
  } catch {
    return undefined;
  }
}
