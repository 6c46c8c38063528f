import type { Json } from '../../src/study/merge.js';

/** A study of two learning rates that is over in no time; `change` replaces fields. */
export const quickStudy = (change: Json = {}): Json => ({
  name: 'rates',
  title: 'Two learning rates',
  question: 'Which is better?',
  base: {
    extends: 'tiny',
    steps: 4,
    batchSequences: 2,
    sequenceLength: 16,
    warmupSteps: 1,
    validateEvery: 2,
    validationBatches: 1,
    checkpointEvery: 4,
    data: { validationFraction: 0.2 },
  },
  data: ['sample.txt'],
  seeds: [0, 1],
  variants: [
    { name: 'slow', title: 'Slow', patch: { learningRate: 0.001 } },
    { name: 'fast', title: 'Fast', patch: { learningRate: 0.01 } },
  ],
  metrics: ['validationLoss', 'cacheBytesPerToken'],
  claims: [
    {
      text: 'Faster is better.',
      source: '[nowhere]',
      metric: 'validationLoss',
      variant: 'fast',
      against: 'slow',
      rule: { kind: 'lower' },
    },
  ],
  ...change,
});
