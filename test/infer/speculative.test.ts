import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import type { SamplingOptions } from '../../src/infer/engine.js';
import { LogitOps } from '../../src/infer/logit-ops.js';
import { Sampler } from '../../src/infer/sampler.js';
import { resolveSampling } from '../../src/infer/sampling-options.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { CheckedCore } from './core-run.js';
import { FakeRunner } from './fake-runner.js';

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

  it('pauses where drafts are wrong too often, for a time', () => {
    const core = new CheckedCore(new FakeRunner({ ...MODEL, noise: 50 }));
    const { sequence } = core.submit({ prompt: PROMPT, maxTokens: 500, seed: 1, temperature: 0 });
    core.finish();
    const { draftedTokens, acceptedTokens } = sequence;
    // 32 drafts, 256 tokens without, and again.
    expect([draftedTokens, acceptedTokens < 32]).toEqual([64, true]);
  });

  it('takes no more tokens than were asked for', () => {
    for (let maxTokens = 1; maxTokens < 6; maxTokens++) {
      expect(new CheckedCore(new FakeRunner(MODEL)).run({ prompt: PROMPT, maxTokens })).toHaveLength(
        maxTokens,
      );
    }
  });
});
