import { describe, expect, it } from 'vitest';
import { largestTraining } from '../../src/plan/largest.js';
import { makeSchedule } from '../../src/plan/pipeline/formulas.js';
import { simulate } from '../../src/plan/pipeline/simulate.js';
import { explain, mergeResults, paretoFront, searchPlans } from '../../src/plan/search.js';
import { DEFAULT_SERVE_PLAN } from '../../src/plan/serve-plan.js';
import { cutStages } from '../../src/plan/stages.js';
import { estimateTraining, goodput, pipelineSeconds, trainRun } from '../../src/plan/train.js';
import { checkPlan, DEEPSEEK_V3_PLAN, type TrainPlan } from '../../src/plan/train-plan.js';
import { simulateTraining } from '../../src/plan/train-simulation.js';
import { improved, RECOMMENDATIONS, whatIf } from '../../src/plan/what-if.js';
import { MACHINES } from '../../src/spec/machines.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { PUBLIC_MODELS } from '../../src/spec/public-models.js';
import { parseModelShape } from '../../src/spec/read-shape.js';

const v3 = parseModelShape(MODEL_PRESETS['deepseek-v3']);
const llama = parseModelShape(PUBLIC_MODELS['llama-3.1-8b'].config);
const cluster = { name: '2,048 H800', machine: MACHINES['h800-2024']!, nodes: 256 };

describe('pipeline by formula', () => {
  const times = { forward: 1, backward: 2.25, backwardWeights: 1, overlapped: 2.75 };

  it.each([
    ['1f1b', 8, 32],
    ['dualpipe', 4, 20],
    ['dualpipe', 16, 64],
  ] as const)(
    '%s on %i devices with %i micro-batches takes as long as its events',
    (schedule, pipeline, count) => {
      const plan: TrainPlan = { ...DEEPSEEK_V3_PLAN, schedule, pipeline, data: 1, globalBatch: count };
      const [work, bubble] = pipelineSeconds(plan, times);
      expect(work + bubble).toBe(simulate(makeSchedule(schedule, pipeline, count), times).seconds);
    },
  );

  it('dualpipe-v, whose chunks are half a stage', () => {
    const plan: TrainPlan = {
      ...DEEPSEEK_V3_PLAN,
      schedule: 'dualpipe-v',
      pipeline: 4,
      data: 1,
      globalBatch: 20,
    };
    const [work, bubble] = pipelineSeconds(plan, times);
    const half = { forward: 0.5, backward: 1.125, backwardWeights: 0.5, overlapped: 1.375 };
    expect(work + bubble).toBe(simulate(makeSchedule('dualpipe-v', 4, 20), half).seconds);
  });
});

describe('DeepSeek-V3 on 2,048 H800', () => {
  const estimate = estimateTraining(v3, cluster, DEEPSEEK_V3_PLAN);

  it('is as long as what was measured, from kernels alone [ISCA table 4]', () => {
    const { stepSeconds, tokensPerDay, causalMfu, parts } = simulateTraining(v3, cluster, DEEPSEEK_V3_PLAN);
    const within = (ours: number, theirs: number) => Math.abs(ours / theirs - 1);
    expect(within(stepSeconds, 19.926)).toBeLessThan(0.1);
    expect(within(tokensPerDay, 272.8e9)).toBeLessThan(0.05);
    expect(within(causalMfu, 0.3894)).toBeLessThan(0.05);
    expect(within(parts.forward, 1.13)).toBeLessThan(0.1);
    expect(within(parts.weights, 0.48)).toBeLessThan(0.1);
    expect(within(parts.overlapped, 13.95)).toBeLessThan(0.1);
    expect(within(parts.optimizer, 0.29)).toBeLessThan(0.1);
  });

  it('is estimated by formula within a tenth of the events', () => {
    const { stepSeconds } = simulateTraining(v3, cluster, DEEPSEEK_V3_PLAN);
    expect(Math.abs(estimate.stepSeconds / stepSeconds - 1)).toBeLessThan(0.1);
  });

  it('sums up', () => {
    const { workSeconds, bubbleSeconds, end } = estimate;
    const sum = workSeconds + bubbleSeconds + end.reduceSeconds + end.updateSeconds + end.gatherSeconds;
    expect(sum).toBe(estimate.stepSeconds);
    const simulated = simulateTraining(v3, cluster, DEEPSEEK_V3_PLAN);
    const parts = Object.values(simulated.parts).reduce((a, b) => a + b, 0);
    // Rounding of some thousand sums.
    expect(parts).toBeCloseTo(simulated.stepSeconds, 9);
  });

  it('fits, and does not with every activation kept', () => {
    expect(estimate.memory.fits).toBe(true);
    const greedy = estimateTraining(v3, cluster, { ...DEEPSEEK_V3_PLAN, recompute: 'none' });
    expect(greedy.memory.fits).toBe(false);
  });

  it('has every layer, the head and its module in some stage', () => {
    const stages = cutStages(v3, cluster.machine, DEEPSEEK_V3_PLAN);
    expect(stages).toHaveLength(16);
    expect(stages.reduce((n, stage) => n + stage.layers, 0)).toBe(62);
  });
});

describe('plans that cannot be', () => {
  it.each([
    [{ expert: 48 }, /expert \(48\) must divide the 256 experts; the nearest is (32|64)/],
    [{ pipeline: 128, data: 16, expert: 16 }, /pipeline \(128\) exceeds the 62 layers; take at most 62/],
    [{ data: 256 }, /needs 4096 devices, the cluster has 2048; the most is data = 128/],
    [{ globalBatch: 15361 }, /batch \(15361\) must be a multiple of .* \(128\); the nearest is 15360/],
    [{ format: 'fp32' }, /h800-2024 does not compute in fp32; it has bf16, fp8/],
    [
      { globalBatch: 128 * 16 },
      /dualpipe needs at least 32 micro-batches a step, not 16; raise the batch to 4096/,
    ],
    [{ context: 2 }, /× context 2 needs 4096 devices, the cluster has 2048; the most is data = 64/],
    [
      { context: 3, data: 32, expert: 32, globalBatch: 1024 },
      /context \(3\) must divide the 4096 tokens of a sequence; the nearest is (2|4)/,
    ],
    [{ nodeLimit: 9 }, /node limit \(9\) exceeds the 8 groups of the router; take at most 8/],
    [{ tensor: 16, data: 8, expert: 64, globalBatch: 4096 }, /tensor \(16\) exceeds the 8 devices of a node/],
  ] as [Partial<TrainPlan>, RegExp][])('%j', (change, message) => {
    expect(() => checkPlan({ ...DEEPSEEK_V3_PLAN, ...change }, v3, cluster)).toThrow(message);
  });

  it('has no experts to spread in a dense model', () => {
    const plan = { ...DEEPSEEK_V3_PLAN, expert: 8 };
    expect(() => checkPlan(plan, llama, cluster)).toThrow(/must be 1: the model has no experts/);
  });
});

describe('context parallelism', () => {
  const long: TrainPlan = {
    ...DEEPSEEK_V3_PLAN,
    length: 32768,
    globalBatch: 2048,
    data: 64,
    recompute: 'full',
  };

  it('halves what a device keeps of a sequence, and pays for keys and values that go round', () => {
    const alone = estimateTraining(v3, cluster, long);
    const shared = estimateTraining(v3, cluster, { ...long, context: 2 });
    expect(shared.memory.activations).toBeCloseTo(alone.memory.activations / 2, -3);
    // Twice the devices for the same tokens.
    expect(shared.stepSeconds).toBeLessThan(alone.stepSeconds);
    expect(shared.stepSeconds).toBeGreaterThan(0.5 * alone.stepSeconds);
  });
});

describe('a limit of nodes of its own', () => {
  it('makes exchanges shorter, which a step with exposed exchanges shows', () => {
    const plan: TrainPlan = { ...DEEPSEEK_V3_PLAN, schedule: '1f1b' };
    const [two, own, eight] = [2, null, 8].map((nodeLimit) =>
      estimateTraining(v3, cluster, { ...plan, nodeLimit }),
    );
    expect(two!.stepSeconds).toBeLessThan(own!.stepSeconds);
    expect(own!.stepSeconds).toBeLessThan(eight!.stepSeconds);
    expect(estimateTraining(v3, cluster, { ...plan, nodeLimit: 4 }).stepSeconds).toBe(own!.stepSeconds);
  });

  it('cannot be where the router knows no groups', () => {
    const mixtral = parseModelShape(PUBLIC_MODELS['mixtral-8x22b'].config);
    const plan: TrainPlan = { ...DEEPSEEK_V3_PLAN, pipeline: 8, expert: 8, data: 256, nodeLimit: 2 };
    expect(() => checkPlan(plan, mixtral, cluster)).toThrow(/knows no groups/);
  });
});

describe('what would still fit', () => {
  it('is the largest that does, and one more is too much', () => {
    const found = largestTraining(v3, cluster, DEEPSEEK_V3_PLAN);
    const at = (change: Partial<TrainPlan>) =>
      estimateTraining(v3, cluster, { ...DEEPSEEK_V3_PLAN, ...change });
    expect(at({ length: found.length }).memory.fits).toBe(true);
    expect(at({ length: found.length + 1024 }).memory.fits).toBe(false);
    expect(found.microBatch).toBe(1);
    expect(at({ microBatch: 2 }).memory.fits).toBe(false);
  });
});

describe('search', () => {
  const small = { name: 'small', machine: MACHINES.h800!, nodes: 2 };
  const input = {
    globalBatch: 64,
    length: 4096,
    formats: ['bf16'],
    nodeLimits: [null],
    objective: 'step-time',
    mostStepSeconds: Number.POSITIVE_INFINITY,
    mostDollars: Number.POSITIVE_INFINITY,
    limit: 1e6,
  } as const;
  const found = searchPlans(llama, small, input);

  it('ranks plans that fit by what is asked for', () => {
    const steps = found.ranked.map(({ estimate }) => estimate.stepSeconds);
    expect(steps.length).toBeGreaterThan(10);
    for (let i = 1; i < steps.length; i++)
      expect(steps[i]! * (1 + 1e-5)).toBeGreaterThanOrEqual(steps[i - 1]!);
    expect(found.ranked.every(({ estimate }) => estimate.memory.fits)).toBe(true);
  });

  it('leaves out what is beyond a limit', () => {
    const most = found.ranked[5]!.estimate.stepSeconds;
    const limited = searchPlans(llama, small, { ...input, mostStepSeconds: most });
    expect(limited.ranked.every(({ estimate }) => estimate.stepSeconds <= most)).toBe(true);
    expect(limited.limited).toBeGreaterThan(0);
  });

  it('finds with two workers what it finds with one', () => {
    const parts = [0, 1].map((index) => searchPlans(llama, small, input, { index, of: 2 }));
    const both = mergeResults(parts, input.objective);
    // Of equal plans either may come first.
    const steps = (of: typeof both) => of.ranked.slice(0, 500).map(({ estimate }) => estimate.stepSeconds);
    expect(steps(both)).toEqual(steps(found));
    const places = (of: typeof both) => of.front.map(({ estimate: e }) => [e.stepSeconds, e.memory.total]);
    expect(places(both)).toEqual(places(found));
  });

  it('has a front that nothing beats', () => {
    for (const a of found.front) {
      const better = found.ranked.filter(
        ({ estimate: e }) =>
          e.stepSeconds < a.estimate.stepSeconds && e.memory.total < a.estimate.memory.total,
      );
      expect(better).toEqual([]);
    }
    expect(paretoFront([])).toEqual([]);
  });

  it('says what the runner-up does otherwise', () => {
    const text = explain(found.ranked[0]!, found.ranked.at(-1)!);
    expect(text).toMatch(/in place of .*: .*memory [+−]/);
  });
});

describe('what-if', () => {
  it('leaves the machine as it is', () => {
    const before = JSON.stringify(cluster.machine);
    const { operation } = improved(cluster, RECOMMENDATIONS);
    expect(operation.failures).toBeCloseTo(1 - (25 + 49) / 419, 12);
    expect(JSON.stringify(cluster.machine)).toBe(before);
  });

  it('makes nothing slower, and all of it together the quickest', () => {
    const { alone, together } = whatIf(v3, cluster, DEEPSEEK_V3_PLAN, DEFAULT_SERVE_PLAN);
    expect(alone).toHaveLength(RECOMMENDATIONS.length);
    for (const { stepChange, tokenChange, runChange } of alone) {
      // Stages are cut to a thousandth of the whole.
      expect(stepChange).toBeLessThan(0.01);
      expect(tokenChange).toBeLessThanOrEqual(0);
      expect(Math.min(stepChange, tokenChange, runChange)).toBeLessThan(0);
    }
    expect(together.stepChange).toBeLessThan(Math.min(...alone.map(({ stepChange }) => stepChange)));
  });
});

describe('a whole run', () => {
  it('takes its tokens at the pace of the step, failures included', () => {
    const estimate = estimateTraining(v3, cluster, DEEPSEEK_V3_PLAN);
    const good = goodput(cluster, 60, 600);
    const run = trainRun(1e12, cluster, estimate, good);
    expect(run.deviceHours).toBeCloseTo(estimate.deviceHoursPerTrillionTokens / good.share, 3);
    expect(run.dollars).toBeCloseTo(2 * run.deviceHours, 3);
    expect(run.days).toBeCloseTo(run.deviceHours / 2048 / 24, 9);
  });
});

describe('goodput', () => {
  it('is best at the interval that Young gives', () => {
    const { bestIntervalSeconds: best, share } = goodput(cluster, 60, 600);
    for (const other of [0.5, 0.9, 1.1, 2])
      expect(goodput(cluster, 60, 600, best * other).share).toBeLessThan(share);
  });
});
