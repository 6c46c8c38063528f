import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import type { SamplingOptions } from '../../src/infer/engine.js';
import { LogitOps } from '../../src/infer/logit-ops.js';
import type { StepBatch, StepResult } from '../../src/infer/runner.js';
import { Sampler } from '../../src/infer/sampler.js';
import { resolveSampling } from '../../src/infer/sampling-options.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { CheckedCore } from './core-run.js';
import { type FakeOptions, FakeRunner } from './fake-runner.js';

const V = 6;
const PROMPT = [1, 2, 3];
const LENGTH = 4;
const DRAWS = 5000;
/** The last two tokens decide the next one, so that the chances of every continuation can be listed. */
const MODEL = { vocabulary: V, memory: 2, drafts: true, noise: 1, spread: 1.5, pages: 400 };

/** Probability of each continuation of `LENGTH` tokens by plain sampling, token by token. */
function chances(runner: FakeRunner, options: SamplingOptions): Map<string, number> {
  const sampler = new Sampler(new LogitOps(referenceBackend, V));
  const sampling = resolveSampling(options, V);
  const found = new Map<string, number>();
  const visit = (tokens: number[], p: number): void => {
    if (tokens.length === LENGTH) {
      found.set(tokens.join(), p);
      return;
    }
    const continuation = new Map<number, number>();
    for (const token of tokens) continuation.set(token, (continuation.get(token) ?? 0) + 1);
    const history = { seen: new Set([...PROMPT, ...tokens]), continuation };
    const logits = Tensor.f32([1, V], runner.logits([...PROMPT, ...tokens]));
    const { ids, weights, total } = sampler.distribution(logits, sampling, history);
    const next = Array.from(weights, (weight, i) => [ids ? ids[i]! : i, weight / total] as const);
    for (const [token, share] of next) if (share > 0) visit([...tokens, token], p * share);
  };
  visit([], 1);
  return found;
}

function draws(
  runner: FakeRunner,
  options: SamplingOptions,
): { counts: Map<string, number>; acceptance: number } {
  const core = new CheckedCore(runner, { maxBatch: 50, maxQueue: DRAWS });
  const counts = new Map<string, number>();
  const recorded = Array.from({ length: DRAWS }, (_, seed) =>
    core.submit({ prompt: PROMPT, maxTokens: LENGTH, ...options, seed }),
  );
  while (!core.core.idle) core.core.step();
  for (const { tokens } of recorded) counts.set(tokens.join(), (counts.get(tokens.join()) ?? 0) + 1);
  const { draftedTokens, acceptedTokens } = core.core.stats();
  return { counts, acceptance: acceptedTokens / draftedTokens };
}

/** χ² over outcomes expected five times at least (the others together), as standard deviations from its mean. */
function deviation(expected: ReadonlyMap<string, number>, counts: ReadonlyMap<string, number>): number {
  let [chiSquare, cells, rareExpected, rareCounted] = [0, 0, 0, 0];
  const add = (e: number, c: number) => {
    chiSquare += (c - e) ** 2 / e;
    cells++;
  };
  for (const [outcome, p] of expected) {
    const [e, c] = [p * DRAWS, counts.get(outcome) ?? 0];
    if (e >= 5) add(e, c);
    else {
      rareExpected += e;
      rareCounted += c;
    }
  }
  if (rareExpected >= 5) add(rareExpected, rareCounted);
  return (chiSquare - (cells - 1)) / Math.sqrt(2 * (cells - 1));
}

describe('speculative sampling', () => {
  it.each<[string, SamplingOptions]>([
    ['the model itself', {}],
    ['temperature and top-k', { temperature: 0.7, topK: 4 }],
    ['top-p and min-p', { temperature: 1.3, topP: 0.9, minP: 0.05 }],
    ['penalties', { repetitionPenalty: 1.4, presencePenalty: 0.5, frequencyPenalty: 0.8 }],
    ['a logit bias', { logitBias: { 2: 1.5, 4: -2 } }],
  ])('draws from the distribution of plain sampling: %s', (_name, options) => {
    const expected = chances(new FakeRunner(MODEL), options);
    const { counts, acceptance } = draws(new FakeRunner(MODEL), options);
    for (const outcome of counts.keys()) expect(expected.has(outcome), outcome).toBe(true);
    // A χ² this far from its mean comes once in 10^4 (it is skewed); the seeds are fixed.
    expect(Math.abs(deviation(expected, counts))).toBeLessThan(4);
    expect(acceptance).toBeGreaterThan(0.4);
    expect(acceptance).toBeLessThan(0.95);
  });

  it('accepts every draft of a module that is always right, and saves half of the steps', () => {
    const runner = new FakeRunner({ ...MODEL, noise: 0 });
    const core = new CheckedCore(runner);
    const { sequence } = core.submit({ prompt: PROMPT, maxTokens: 101, seed: 1 });
    core.finish();
    // The prompt gives the first token, each of 50 steps two more.
    expect(runner.steps).toHaveLength(51);
    expect([sequence.draftedTokens, sequence.acceptedTokens]).toEqual([50, 50]);
  });

  it('pauses where drafts are wrong too often, the longer the more', () => {
    const drafted = (noise: number) => {
      const core = new CheckedCore(new FakeRunner({ ...MODEL, noise }));
      const { sequence } = core.submit({ prompt: PROMPT, maxTokens: 800, seed: 1, topK: 3 });
      core.finish();
      return sequence.draftedTokens;
    };
    // A seed decides the tokens: half of the drafts must be right, whatever anything takes.
    const [always, often, seldom] = [drafted(0), drafted(4), drafted(50)];
    expect(always).toBe(399);
    expect(seldom % 32).toBe(0);
    expect(seldom).toBeLessThan(often);
    expect(often).toBeLessThan(399);
  });

  it('takes no more tokens than were asked for', () => {
    for (let maxTokens = 1; maxTokens < 6; maxTokens++) {
      expect(new CheckedCore(new FakeRunner(MODEL)).run({ prompt: PROMPT, maxTokens })).toHaveLength(
        maxTokens,
      );
    }
  });
});

/** A fake model whose calls take time on its own clock, in steps of one row. */
class TimedRunner extends FakeRunner {
  seconds = 0;
  /** Rows of each call of the module. */
  readonly moduleRows: number[] = [];

  constructor(
    options: FakeOptions,
    private readonly costs: { row: number; module: number },
  ) {
    super({ ...MODEL, ...options });
  }

  override step(batch: StepBatch): StepResult {
    this.seconds += 1 + this.costs.row * (batch.tokens.length - 1);
    return super.step(batch);
  }

  override draft(batch: StepBatch, hidden: Tensor): StepResult {
    this.moduleRows.push(batch.tokens.length);
    this.seconds += this.costs.module;
    return super.draft(batch, hidden);
  }
}

describe('drafts by what they cost', () => {
  const run = (options: FakeOptions, costs: { row: number; module: number }, count = 1) => {
    const runner = new TimedRunner(options, costs);
    const core = new CheckedCore(runner, { clock: () => runner.seconds });
    const all = Array.from({ length: count }, (_, i) =>
      core.submit({ prompt: [...PROMPT, i], maxTokens: 640, temperature: 0 }),
    );
    core.finish();
    return { runner, all, drafted: all[0]!.sequence.draftedTokens };
  };
  const plain = (count = 1) =>
    Array.from({ length: count }, (_, i) =>
      new CheckedCore(new FakeRunner({ ...MODEL, drafts: false })).run({
        prompt: [...PROMPT, i],
        maxTokens: 640,
        temperature: 0,
      }),
    );

  it('goes on with drafts that pay, but for a step in 64', () => {
    const { drafted, runner } = run({ noise: 0 }, { row: 0.2, module: 0.2 });
    expect(drafted).toBeGreaterThan(300);
    expect(drafted).toBeLessThan(320);
    // 640 steps without drafts; 1.4 for two tokens is 448.
    expect(runner.seconds).toBeLessThan(1.03 * 448);
  });

  it('counts seconds of decoding by the same clock', () => {
    const runner = new TimedRunner({ drafts: false }, { row: 0, module: 0 });
    runner.seconds = 1e6;
    const core = new CheckedCore(runner, { clock: () => runner.seconds });
    core.submit({ prompt: PROMPT, maxTokens: 20, temperature: 0 });
    core.finish();
    const { decodeSteps, decodeSeconds } = core.core.stats();
    expect(decodeSteps).toBeGreaterThan(0);
    expect(decodeSeconds).toBe(decodeSteps); // a second each
  });

  it('leaves drafts alone that cost more than they save, even right ones', () => {
    const { drafted, runner } = run({ noise: 0 }, { row: 0.9, module: 0.3 });
    expect(drafted).toBeLessThanOrEqual(128);
    expect(runner.seconds).toBeLessThan(1.05 * 640);
  });

  it('takes seldom right drafts where they are cheap', () => {
    const costs = { row: 0.02, module: 0.02 };
    const { drafted, all } = run({ noise: 3 }, costs);
    expect(all[0]!.sequence.acceptedTokens / drafted).toBeLessThan(0.5);
    expect(drafted).toBeGreaterThan(300);
  });

  it('keeps the module up to date in few calls while it pauses, and drafts on unchanged', () => {
    const { runner, all } = run({ noise: 50 }, { row: 0.9, module: 0.3 });
    // Each row that is kept is read once: all but the last token.
    expect(runner.moduleRows.reduce((sum, rows) => sum + rows, 0)).toBe(PROMPT.length + 1 + 640 - 1);
    expect(runner.moduleRows).toContain(32);
    expect(all[0]!.tokens).toEqual(plain()[0]);
  });

  it('never changes a greedy text, in a crowd either', () => {
    const { all } = run({ noise: 2 }, { row: 0.4, module: 0.2 }, 5);
    expect(all.map(({ tokens }) => tokens)).toEqual(plain(5));
  });
});
