import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { analyse } from '../../src/study/analysis.js';
import { shippedStudies } from '../../src/study/library.js';
import { planStudy } from '../../src/study/plan.js';
import { ResultsFolder } from '../../src/study/results.js';

const RESULTS = fileURLToPath(new URL('../../docs/studies', import.meta.url));

describe.each(shippedStudies())('committed results of the study $study.name', ({ study, file }) => {
  const folder = path.join(RESULTS, study.name);
  const results = ResultsFolder.open(folder);

  it('are of the study as it is shipped', () => {
    expect(results.digest).toBe(planStudy(study, file).digest);
    expect(results.study).toEqual(study);
  });

  it('are complete, and give the report beside them', () => {
    const report = analyse({ study: results.study, digest: results.digest, records: results.records() });
    expect(report.runs.complete).toBe(report.runs.expected);
    const committed = JSON.parse(readFileSync(path.join(folder, 'report.json'), 'utf8'));
    expect(JSON.parse(JSON.stringify(report))).toEqual(committed);
  });
});
