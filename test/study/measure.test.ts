import { describe, expect, it } from 'vitest';
import { measureRun } from '../../src/study/measure.js';
import type { Json } from '../../src/study/merge.js';
import { planStudy } from '../../src/study/plan.js';
import { parseStudy } from '../../src/study/schema.js';
import { makeFolder } from '../text/folder.js';
import { goldenPath } from '../text/goldens.js';
import { quickStudy } from './study.js';

const FILE = goldenPath('study.json');

/** Metrics of a run of 40 steps, validated every 5, that left these lines. */
function measure(lines: readonly object[], change: Json = {}) {
  const base = { ...(quickStudy().base as Json), steps: 40, validateEvery: 5, ...change };
  const [variant] = planStudy(parseStudy(quickStudy({ base }), FILE), FILE).variants;
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  return measureRun(makeFolder({ 'metrics.jsonl': text }), variant!, undefined);
}

const steps = Array.from({ length: 40 }, (_, i) => i + 1);

describe('metrics of a run', () => {
  it('are means over the last quarter of the steps', () => {
    const lines = steps.map((step) => ({
      step,
      loss: step <= 30 ? 100 : step,
      mtpLoss: [step <= 30 ? 9 : 7, 1],
    }));
    // 31 … 40, of lists the first element.
    expect(measure(lines).metrics).toMatchObject({ trainLoss: 35.5, mtpLoss: 7 });
  });

  it('are means over three points at least', () => {
    const lines = [25, 30, 35, 40].map((step) => ({ step, validationLoss: step }));
    expect(measure(lines).metrics.validationLoss).toBe(35);
  });

  it('leave out validations that only a resumed run has', () => {
    const lines = [25, 30, 33, 35, 40].map((step) => ({ step, validationLoss: step }));
    const { metrics, curves } = measure(lines);
    expect(metrics.validationLoss).toBe(35);
    expect(curves.validationLoss.map(([step]) => step)).toEqual([25, 30, 35, 40]);
  });

  it('are left out where the run does not tell, or tells no number', () => {
    const { metrics } = measure([{ step: 40, loss: null }]);
    expect(Object.keys(metrics)).not.toContain('trainLoss');
    expect(Object.keys(metrics)).not.toContain('peakBytes');
    // 110 k parameters in the embedding and head alone.
    expect(metrics.parameters).toBeGreaterThan(2 * 512 * 128);
    expect(metrics.activeParameters).toBeLessThan(metrics.parameters!);
  });

  it('count the bytes that a token moves between nodes', () => {
    // tiny: 4 groups, hidden 128, two layers with experts; fp8 sends E4M3 with an FP32 scale per 128 and gets BF16 back.
    const row = 128 + 4 + 2 * 128;
    const { metrics } = measure([{ step: 40, nodesPerToken: 1.5 }]);
    expect(metrics.nodeBytesPerToken).toBeCloseTo(1.5 * (3 / 4) * row * 2, 9);
    expect(metrics.combineBytesPerToken).toBe(2 * 2 * 128 * 2);
  });
});
