import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MetricsLog, readMetrics } from '../../src/train/metrics.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-metrics-'));
  file = path.join(folder, 'run', 'metrics.jsonl');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const steps = () => readMetrics(file).map(({ step }) => step);

/** A log with one line per step. */
function logged(upTo: number): MetricsLog {
  const log = MetricsLog.open(file);
  for (let step = 1; step <= upTo; step++) log.append({ step, loss: 8 / step });
  return log;
}

describe('MetricsLog', () => {
  it('has every line in the file as soon as it is appended', () => {
    const log = logged(2);
    expect(readFileSync(file, 'utf8')).toBe('{"step":1,"loss":8}\n{"step":2,"loss":4}\n');
    log.close();
  });

  it('goes on after the step that a run resumes from', () => {
    logged(5).close();
    const log = MetricsLog.open(file, 3);
    log.append({ step: 4, loss: 1 });
    log.close();
    expect(steps()).toEqual([1, 2, 3, 4]);
    expect(readMetrics(file).at(-1)).toEqual({ step: 4, loss: 1 });
  });

  it('drops a line that a killed process left torn', () => {
    logged(2).close();
    appendFileSync(file, '{"step":3,"lo');
    expect(steps()).toEqual([1, 2]);
    const log = MetricsLog.open(file, 2);
    log.append({ step: 3, loss: 1 });
    log.close();
    expect(steps()).toEqual([1, 2, 3]);
  });

  it('goes back to a checkpoint within a run', () => {
    const log = logged(4);
    log.rewind(2);
    log.append({ step: 3, loss: Number.NaN });
    log.close();
    expect(readFileSync(file, 'utf8').split('\n').slice(2)).toEqual(['{"step":3,"loss":null}', '']);
  });

  it('starts a new run with an empty file', () => {
    logged(3).close();
    MetricsLog.open(file).close();
    expect(readFileSync(file, 'utf8')).toBe('');
  });

  it('names a file that cannot be written', () => {
    writeFileSync(path.join(folder, 'plain'), '');
    const inside = path.join(folder, 'plain', 'metrics.jsonl');
    expect(() => MetricsLog.open(inside)).toThrow(/cannot write .*metrics\.jsonl: /);
  });
});
