import { describe, expect, it } from 'vitest';
import { RECIPES, recipeSchema } from '../../src/spec/precision.js';
import { parseTrainConfig } from '../../src/train/config.js';

/** A training file with this precision. */
const parse = (precision: unknown) => {
  const base = { model: 'tiny', steps: 1, batchSequences: 1, sequenceLength: 8, learningRate: 1e-3 };
  return parseTrainConfig({ ...base, warmupSteps: 0, precision }, 'train.json');
};

const FP22 = { kind: 'fp22', promoteEvery: 128 } as const;

describe('a precision recipe', () => {
  it('is what its preset says', () => {
    for (const recipe of Object.values(RECIPES)) expect(recipeSchema.parse(recipe)).toEqual(recipe);
  });

  it('scales per tile and block, sums in FP32 and sends activations back unless told otherwise', () => {
    const { accumulator: _, ...older } = RECIPES.fp8;
    const recipe = recipeSchema.parse({ ...older, swigluCache: { format: 'e4m3' } });
    expect(recipe).toEqual(RECIPES.fp8);
    expect(recipe).toMatchObject({
      accumulator: { kind: 'fp32' },
      linear: { fprop: { input: { granularity: 'tile' } } },
    });
    expect(recipe.combine).toBeUndefined();
  });

  it('gives its accumulator to every Linear that has none of its own, and can be read again', () => {
    const expertUp = { ...RECIPES.fp8.expertUp, accumulator: { kind: 'fp32' } };
    const recipe = recipeSchema.parse({ ...RECIPES.fp8, expertUp, accumulator: FP22 });
    expect(recipe.linear.accumulator).toEqual(FP22);
    expect(recipe.expertDown.accumulator).toEqual(FP22);
    expect(recipe.expertUp.accumulator).toEqual({ kind: 'fp32' });
    expect(recipeSchema.parse(JSON.parse(JSON.stringify(recipe)))).toEqual(recipe);
  });

  const granularity = 'tensor';
  const cases: [about: string, precision: object, message: string][] = [
    ['an unknown field', { ...RECIPES.fp8, combin: {} }, 'unknown field "combin" in precision'],
    [
      'an unknown field of an operand',
      { ...RECIPES.fp8, swigluCache: { format: 'e4m3', granular: 'tile' } },
      'unknown field "granular" in precision.swigluCache',
    ],
    [
      'an unknown field of the accumulator',
      { ...RECIPES.fp8, accumulator: { kind: 'fp32', promoteEvery: 128 } },
      'unknown field "promoteEvery" in precision.accumulator',
    ],
    [
      'a scale for a format without',
      { ...RECIPES.bf16, swigluCache: { format: 'bf16', granularity } },
      'precision.swigluCache.granularity: fp32 and bf16 have no scales',
    ],
    [
      'FP22 without FP8',
      { ...RECIPES.bf16, accumulator: FP22 },
      'precision.accumulator: fp22 sums products of e4m3, e5m2 or e5m6',
    ],
    [
      'a choice of rounding for E4M3',
      { ...RECIPES.bf16, combine: { format: 'e4m3', rounding: 'log' } },
      'precision.combine.rounding: only logfmt8 and logfmt10',
    ],
  ];
  for (const [about, precision, message] of cases) {
    it(`refuses ${about}`, () => expect(() => parse(precision)).toThrow(message));
  }

  const values: [about: string, recipe: object, field: string][] = [
    ['an unknown wire format', { ...RECIPES.bf16, combine: { format: 'logfmt9' } }, 'combine.format'],
    [
      'promotion every 64',
      { ...RECIPES.fp8, accumulator: { kind: 'fp22', promoteEvery: 64 } },
      'accumulator.promoteEvery',
    ],
    [
      'FP22 that does not say when to promote',
      { ...RECIPES.fp8, accumulator: { kind: 'fp22' } },
      'accumulator.promoteEvery',
    ],
  ];
  for (const [about, recipe, field] of values) {
    it(`refuses ${about}`, () => {
      const issues = recipeSchema.safeParse(recipe).error!.issues;
      expect(issues.map(({ path }) => path.join('.'))).toEqual([field]);
    });
  }
});

describe('a recipe in a training file', () => {
  it.each([
    [{ combine: { format: 'logfmt9' } }, /field precision\.combine\.format: .*logfmt10/],
    [
      { accumulator: { kind: 'fp22', promoteEvery: 64 } },
      /field precision\.accumulator\.promoteEvery: .*128/,
    ],
  ])('names the field that is wrong: %j', (patch, message) => {
    expect(() => parse({ ...RECIPES.fp8, ...patch })).toThrow(message);
  });
});
