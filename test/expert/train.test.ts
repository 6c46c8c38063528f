import { describe, expect, it } from 'vitest';
import { noMpi, onMpi, onThreads, type RankOptions } from './ranks.js';
// @ts-expect-error plain JavaScript, as ranks run it
import { randomBatches, trainerOver } from './training.mjs';

interface Curve {
  losses: number[];
  norms: number[];
  /** Halves of a micro-batch that overlap, or one. */
  lanes?: number;
}

const STEPS = 50;
const BASE = { steps: STEPS, precision: 'fp32' };

/** The same run in one process. */
async function alone(options: object): Promise<Curve> {
  const trainer = await trainerOver(undefined, options);
  const batches = await randomBatches(trainer.model.config, options, undefined);
  const steps = Array.from({ length: STEPS }, (_, i) => trainer.trainStep(batches(i)));
  return {
    losses: steps.map((s: { loss: number }) => s.loss),
    norms: steps.map((s: { gradientNorm: number }) => s.gradientNorm),
  };
}

const largestDifference = (a: number[], b: number[]): number =>
  Math.max(...a.map((value, i) => Math.abs(value - b[i]!) / Math.abs(value)));

describe('training over ranks', () => {
  it.each<{ name: string; ranks: number; lanes?: number; options: RankOptions }>([
    { name: 'four ranks on one node', ranks: 4, options: { perNode: 4 } },
    { name: 'two nodes of two', ranks: 4, options: { perNode: 2 } },
    { name: 'two nodes of one, halves that overlap', ranks: 2, lanes: 2, options: { perNode: 1 } },
    { name: 'two nodes of one, without overlap', ranks: 2, options: { perNode: 1, overlap: false } },
    {
      name: 'one node, halves that overlap and are computed again in backward',
      ranks: 2,
      lanes: 2,
      options: { perNode: 2, overlap: true, recompute: { rmsNorm: true, mlaUpProjection: true } },
    },
    { name: 'two replicas of two nodes', ranks: 4, options: { perNode: 1, group: 2 } },
    {
      name: 'data parallel only, two micro-batches',
      ranks: 2,
      options: { perNode: 2, group: 1, microBatches: 2 },
    },
  ])('in FP32 equals one process: $name', async ({ ranks, lanes = 1, options }) => {
    const one = await alone({ ...BASE, ...options, group: undefined });
    const many = (await onThreads(ranks, 'train', { ...BASE, ...options })) as Curve[];
    expect(one.losses.at(-1)).toBeLessThan(0.8 * one.losses[0]!);
    // FP32 sums in another order, over 50 steps.
    for (const { losses } of many) expect(largestDifference(one.losses, losses)).toBeLessThan(1e-5);
    expect(many.map((rank) => rank.lanes)).toEqual(Array(ranks).fill(lanes));
    expect(largestDifference(one.norms, many[0]!.norms)).toBeLessThan(1e-3);
  });

  it.skipIf(noMpi).each([
    { name: 'two nodes of two', ranks: 4, perNode: 2, lanes: 1 },
    { name: 'two nodes of one, halves that overlap', ranks: 2, perNode: 1, lanes: 2 },
  ])(`over MPI equals one process: $name ${noMpi ?? ''}`, async ({ ranks, perNode, lanes }) => {
    const one = await alone(BASE);
    const many = (await onMpi(ranks, 'train', { ...BASE, perNode })) as Curve[];
    expect(many[0]!.lanes).toBe(lanes);
    for (const { losses } of many) expect(largestDifference(one.losses, losses)).toBeLessThan(1e-5);
  });

  it.each([
    { name: 'a parameter that all have', options: { expert: false } },
    { name: 'an expert of two groups', options: { expert: true, group: 2 } },
  ])('finds a flipped bit in $name', async ({ options }) => {
    const results = await onThreads(4, 'flipped', { ...BASE, ...options });
    expect(results[0]).toMatch(/^UserError: after step 0 the parameters of (rank 1|rank 3) on/);
    for (const other of results.slice(1)) expect(other).toMatch(/^ReportedError/);
  });

  it('with FP8 there and LogFMT-10 back learns as well', async () => {
    const options = { steps: STEPS, precision: 'fp8', perNode: 1, wire: 'fp8:logfmt10' };
    const one = await alone(options);
    const many = (await onThreads(2, 'train', options)) as Curve[];
    // Within what the formats themselves do to a loss of this size; see the study of FP8.
    expect(Math.abs(many[0]!.losses.at(-1)! / one.losses.at(-1)! - 1)).toBeLessThan(0.05);
    expect(many[0]!.losses).toEqual(many[1]!.losses);
  });
});
