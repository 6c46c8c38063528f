import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { countParameters } from '../../src/model/parameters.js';
import { RECIPES } from '../../src/spec/precision.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { openStudy, shippedStudies } from '../../src/study/library.js';
import { applyPatch, type Json, merge } from '../../src/study/merge.js';
import { type Overrides, planStudy } from '../../src/study/plan.js';
import { parseStudy } from '../../src/study/schema.js';
import { goldenPath } from '../text/goldens.js';
import { quickStudy } from './study.js';

const FILE = goldenPath('study.json');
const plan = (change: Json = {}, overrides: Overrides = {}) =>
  planStudy(parseStudy(quickStudy(change), FILE), FILE, overrides);

/** The study with this patch for its second variant. */
const withPatch = (patch: Json) =>
  plan({
    variants: [
      { name: 'slow', title: 'Slow' },
      { name: 'fast', title: 'Fast', patch },
    ],
  });

describe('patches', () => {
  it('merge objects field by field and replace the rest', () => {
    const base = { a: { b: 1, c: [1, 2] }, d: 4 };
    expect(merge(base, { a: { c: [3], e: null }, d: { f: 5 } })).toEqual({
      a: { b: 1, c: [3], e: null },
      d: { f: 5 },
    });
    expect(base).toEqual({ a: { b: 1, c: [1, 2] }, d: 4 });
  });

  it('reach all objects by "*", before the fields that are named', () => {
    const base = { x: { v: 1 }, y: { v: 1 }, name: 'n' };
    expect(merge(base, { '*': { v: 2 }, y: { v: 3 } })).toEqual({ x: { v: 2 }, y: { v: 3 }, name: 'n' });
  });

  it('begin with presets and spell out those that they change', () => {
    const base = applyPatch({}, { extends: 'tiny', precision: 'fp8', model: { n_group: 1 } }, 'base');
    expect(base).toMatchObject({ steps: 60, model: { ...MODEL_PRESETS.tiny, n_group: 1 }, precision: 'fp8' });
    const patch = { precision: { moments: 'fp32' }, model: { extends: 'mini' } };
    const patched = applyPatch(base, patch, 'patch');
    expect(patched).toMatchObject({
      precision: { ...RECIPES.fp8, moments: 'fp32' },
      model: MODEL_PRESETS.mini,
    });
    expect(patch).toEqual({ precision: { moments: 'fp32' }, model: { extends: 'mini' } });
  });

  it('name a preset that does not exist', () => {
    const attempt = (patch: Json) => () => applyPatch({}, patch, 'study.json, base');
    expect(attempt({ extends: 'huge' })).toThrow(
      'study.json, base: unknown preset "huge"; known are tiny, mini, small',
    );
    expect(attempt({ precision: { extends: 'fp4' } })).toThrow(
      'study.json, base, precision: unknown preset "fp4"',
    );
    expect(attempt({ model: { extends: 'toString' } })).toThrow('unknown preset "toString"');
  });
});

describe('a plan', () => {
  it('has the training file of every variant', () => {
    const { variants, source } = withPatch({ precision: { head: { '*': { '*': { format: 'fp32' } } } } });
    expect(source).toEqual({ paths: [goldenPath('sample.txt')] });
    const [slow, fast] = variants.map(({ config }) => config);
    expect(slow).toMatchObject({ precision: 'fp8', learningRate: 3e-3, steps: 4 });
    // Changed, it is no longer the preset of that name.
    expect(fast!.precision).toEqual({ ...RECIPES.fp8, head: RECIPES.fp32.head, name: 'fast' });
  });

  it('changes its digest with what decides the runs and with nothing else', () => {
    const { digest } = plan();
    expect(plan({ title: 'Other', seeds: [7], claims: [] }).digest).toBe(digest);
    expect(plan({}, { seeds: [3, 4] })).toMatchObject({ digest, study: { seeds: [3, 4] } });
    expect(plan({}, { steps: 5 }).digest).not.toBe(digest);
    expect(plan({ data: ['study.ts'].map(() => 'texts.none.parquet') }).digest).not.toBe(digest);
    expect(withPatch({ learningRate: 0.02 }).digest).not.toBe(digest);
  });

  it('refuses variants that would be the same run', () => {
    for (const patch of [{}, { learningRate: 3e-3 }, { beta1: 0.9, precision: { name: 'other' } }]) {
      expect(() => withPatch(patch)).toThrow(`${FILE}: variants "slow" and "fast" are equal`);
    }
  });

  it('names the variant whose settings are wrong', () => {
    expect(() => withPatch({ learning_rate: 1 })).toThrow(
      `${FILE}, variant fast: unknown field "learning_rate"`,
    );
    expect(() => withPatch({ model: { n_group: 3 } })).toThrow(
      `${FILE}, variant fast, model: n_routed_experts (8) must be a multiple of n_group (3)`,
    );
  });
});

describe('a study file', () => {
  const variant = { name: 'fast', title: 'Fast' };
  const claim = (quickStudy().claims as Json[])[0]!;
  const cases: [change: Json, message: string][] = [
    [{ colour: 'red' }, 'unknown field "colour"'],
    [{ variants: [variant] }, 'field variants: '],
    [{ variants: [variant, variant] }, 'two variants are named "fast"'],
    [
      { variants: [{ ...variant, name: '../up' }, variant] },
      'field variants.0.name: must be lower-case letters',
    ],
    [{ seeds: [1, 1] }, 'seed 1 is listed twice'],
    [{ metrics: ['beauty'] }, 'field metrics.0: '],
    [{ baseline: 'none' }, 'there is no variant "none"; there are slow, fast'],
    [{ claims: [{ ...claim, variant: 'quick' }] }, 'there is no variant "quick"'],
    [{ claims: [{ ...claim, against: 'fast' }] }, 'field claims.0: "fast" is compared with itself'],
    [{ claims: [{ ...claim, against: undefined }] }, 'field claims.0: name in "against"'],
    [
      { claims: [{ ...claim, rule: { kind: 'range', high: 1 } }] },
      'field claims.0: a range looks at one variant',
    ],
    [
      { claims: [{ ...claim, against: undefined, rule: { kind: 'range' } }] },
      'field claims.0.rule: give low, high or both',
    ],
    [{ base: { seed: 3 } }, 'field seed: runs take theirs from the list "seeds"'],
    [{ corpus: 'sotu' }, 'give corpus or data, not both'],
  ];
  for (const [change, message] of cases) {
    it(`is refused with: ${message}`, () => {
      expect(() => parseStudy(quickStudy(change), 'mine.json')).toThrow(`mine.json: ${message}`);
    });
  }
});

describe('shipped studies', () => {
  it('bear the name of their file', () => {
    const names = shippedStudies().map(({ file, study }) => [path.basename(file, '.json'), study.name]);
    expect(names.map(([name]) => name)).toEqual([
      'attention',
      'balance',
      'fp8',
      'logfmt',
      'mtp',
      'routing',
      'wires',
    ]);
    for (const [name, given] of names) expect(given).toBe(name);
  });

  for (const name of ['attention', 'balance', 'fp8', 'logfmt', 'mtp', 'routing', 'wires']) {
    it(`can be planned: ${name}`, () => {
      const { file, study } = openStudy(name);
      expect(planStudy(study, file).variants).toHaveLength(study.variants.length);
    });
  }

  it('compare kinds of attention at equal parameters', () => {
    const { file, study } = openStudy('attention');
    const models = planStudy(study, file).variants.map(({ model }) => model);
    expect(models.map((model) => model.attention_kind)).toEqual(['mha', 'gqa', 'mqa', 'mla']);
    const totals = models.map((model) => countParameters(model).total);
    expect(Math.max(...totals) / Math.min(...totals)).toBeLessThan(1.01);
  });

  it('are found by name; others are listed', () => {
    expect(openStudy('balance').study.name).toBe('balance');
    expect(() => openStudy('nothing')).toThrow(
      /there is no study nothing: name a file, or one of .*balance, /,
    );
  });
});
