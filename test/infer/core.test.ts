import { describe, expect, it } from 'vitest';
import { QueueFullError } from '../../src/infer/engine.js';
import { Random } from '../../src/numerics/random.js';
import { CheckedCore, type TokenRequest } from './core-run.js';
import { type FakeOptions, FakeRunner } from './fake-runner.js';

const fresh = (options: FakeOptions = {}, settings = {}) =>
  new CheckedCore(new FakeRunner(options), settings);
const alone = (request: TokenRequest, options: FakeOptions = {}) => fresh(options).run(request);

/** Requests with prompts that share beginnings, some of them sampled. */
function requests(count: number, seed: number, longest = 40): TokenRequest[] {
  const random = new Random(seed);
  const prompts: number[][] = [];
  return Array.from({ length: count }, (_, i) => {
    const base = prompts.length > 0 && random.below(2) === 0 ? prompts[random.below(prompts.length)]! : [];
    const shared = base.slice(0, random.below(base.length + 1));
    const own = Array.from({ length: 1 + random.below(longest - 1) }, () => random.below(16));
    const prompt = [...shared, ...own].slice(0, longest);
    prompts.push(prompt);
    const sampled = { temperature: 0.9, topP: 0.9, frequencyPenalty: 0.3, repetitionPenalty: 1.1 };
    return {
      prompt,
      maxTokens: 1 + random.below(12),
      seed: i,
      endTokens: [3],
      ...(random.below(2) === 0 ? { temperature: 0 } : sampled),
    };
  });
}

describe.each([
  ['plain', { drafts: false }],
  ['speculative', { drafts: true, noise: 1.5 }],
])('%s decoding', (_name, options) => {
  it('takes the most likely token of the whole context', () => {
    const runner = new FakeRunner(options);
    const context = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    const tokens = new CheckedCore(runner).run({ prompt: context, maxTokens: 10, temperature: 0 });
    expect(tokens).toHaveLength(10);
    for (const token of tokens) {
      const logits = runner.logits(context);
      expect(token).toBe(logits.indexOf(Math.max(...logits)));
      context.push(token);
    }
  });

  it('gives each request the tokens that it has alone, whoever else runs', () => {
    const all = requests(24, 5);
    const core = fresh(options);
    const recorded = all.map((request) => core.submit(request));
    core.finish();
    for (const [i, request] of all.entries())
      expect(recorded[i]!.tokens, `request ${i}`).toEqual(alone(request, options));
  });

  it('goes on unchanged when pages run out and sequences have to give theirs back', () => {
    const all = requests(24, 6, 30);
    const core = fresh({ ...options, pages: 14 });
    const recorded = all.map((request) => core.submit(request));
    core.finish();
    for (const [i, request] of all.entries())
      expect(recorded[i]!.tokens, `request ${i}`).toEqual(alone(request, options));
  });

  it('survives sequences as long as the whole cache, one after the other and together', () => {
    const core = fresh({ ...options, pages: 4 });
    const request = { prompt: [1, 2, 3, 4, 5], maxTokens: 11, temperature: 0 };
    const others = { prompt: [1, 2, 3, 4, 6], maxTokens: 11, temperature: 0 };
    const expected = [alone(request, options), alone(others, options)];
    for (let round = 0; round < 2; round++) {
      const both = [core.submit(request), core.submit(others)];
      core.finish();
      expect(both.map(({ tokens }) => tokens)).toEqual(expected);
    }
  });

  it('loses no page in a storm of requests and cancels', () => {
    const random = new Random(7);
    const core = fresh({ ...options, pages: 20 });
    const running = new Set<ReturnType<typeof core.submit>>();
    for (const request of requests(400, 8, 30)) {
      running.add(core.submit(request));
      if (random.below(3) === 0) core.step();
      for (const recorded of running) {
        if (random.below(20) > 0) continue;
        core.core.cancel(recorded.sequence);
        core.core.scheduler.verify();
        running.delete(recorded);
      }
    }
    core.finish();
    const { allocator, tree } = core.core.scheduler;
    expect(core.core.stats()).toMatchObject({ running: 0, waiting: 0 });
    while (tree.evict());
    expect(allocator.available).toBe(20);
  });
});

describe('prefixes', () => {
  const prompt = Array.from({ length: 21 }, (_, i) => i % 13);

  it.each([
    ['plain', { drafts: false }],
    ['speculative', { drafts: true, noise: 0.5 }],
  ])('re-reads nothing of a conversation: %s', (_name, options) => {
    const core = fresh(options);
    const answer = core.run({ prompt, maxTokens: 9, temperature: 0 });
    const next = [...prompt, ...answer, 7, 7];
    const second = core.submit({ prompt: next, maxTokens: 6, temperature: 0 });
    core.finish();
    expect(second.tokens).toEqual(alone({ prompt: next, maxTokens: 6, temperature: 0 }, options));
    // The last token of the answer was never computed, and where an MTP module looks ahead, one more depends on it.
    expect(second.sequence.reused).toBeGreaterThanOrEqual(prompt.length + 9 - 2);
  });

  it('shares a beginning up to the token where it ends', () => {
    const core = fresh();
    core.run({ prompt, maxTokens: 2, temperature: 0 });
    const other = [...prompt.slice(0, 10), 15, 15, 15];
    const second = core.submit({ prompt: other, maxTokens: 4, temperature: 0 });
    core.finish();
    expect(second.sequence.reused).toBe(10);
    expect(second.tokens).toEqual(alone({ prompt: other, maxTokens: 4, temperature: 0 }));
  });

  it('reads a prompt once for requests that come together', () => {
    const runner = new FakeRunner();
    const core = new CheckedCore(runner);
    const three = [0, 1, 2].map((seed) => core.submit({ prompt, seed, maxTokens: 2 }));
    core.finish();
    expect(three.map(({ sequence }) => sequence.reused)).toEqual([0, 20, 20]);
  });

  it('forgets the least recently used one first', () => {
    const core = fresh({ pages: 12 });
    const [first, second, third] = [1, 2, 3].map((start) => [start, ...prompt.slice(0, 15)]);
    const reused = (tokens: number[]) => {
      const recorded = core.submit({ prompt: tokens, maxTokens: 1, temperature: 0 });
      core.finish();
      return recorded.sequence.reused;
    };
    expect([reused(first!), reused(second!), reused(first!), reused(third!)]).toEqual([0, 0, 15, 0]);
    expect(reused(first!)).toBe(15);
    expect(reused(second!)).toBeLessThan(15);
  });
});

describe('log-probabilities of a prompt', () => {
  const prompt = Array.from({ length: 30 }, (_, i) => (i * 5) % 16);
  /** What the model itself says of each token behind those before it. */
  const expected = prompt.slice(1).map((id, i) => {
    const logits = new FakeRunner().logits(prompt.slice(0, i + 1));
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    return { id, logprob: logits[id]! - Math.log(total), top: [logits.indexOf(Math.max(...logits))] };
  });

  function check(prompts: ReturnType<CheckedCore['submit']>[]): void {
    for (const { prompt: found } of prompts) {
      expect(found.map(({ id, top }) => ({ id, top }))).toEqual(expected.map(({ id, top }) => ({ id, top })));
      // FP32 sums of 16 weights.
      for (const [i, { logprob }] of found.entries()) expect(logprob).toBeCloseTo(expected[i]!.logprob, 5);
    }
  }

  it.each([
    ['plain', { drafts: false }],
    ['speculative', { drafts: true, noise: 1 }],
  ])('are those of every token, though the cache has them: %s', (_name, options) => {
    const core = fresh(options, { prefillTokens: 7, mixedPrefillTokens: 3 });
    const plain = core.run({ prompt, maxTokens: 3, temperature: 0 });
    const scored = core.submit({ prompt, maxTokens: 3, temperature: 0, promptLogprobs: 1 });
    core.finish();
    check([scored]);
    expect([scored.tokens, scored.sequence.reused]).toEqual([plain, 0]);
  });

  it('come once, whoever has to give pages back meanwhile', () => {
    const core = fresh({ pages: 12 }, { prefillTokens: 6 });
    const others = requests(6, 11, 20).map((request) => core.submit(request));
    const scored = [0, 1, 2].map(() => core.submit({ prompt, maxTokens: 10, promptLogprobs: 1 }));
    core.finish();
    check(scored);
    expect(others.every(({ reason }) => typeof reason === 'string')).toBe(true);
  });

  it('may be all that is wanted', () => {
    const core = fresh();
    const scored = core.submit({ prompt, maxTokens: 0, promptLogprobs: 1 });
    core.finish();
    check([scored]);
    expect([scored.tokens, scored.reason]).toEqual([[], 'length']);
  });
});

describe('the batch', () => {
  it('lets nobody who decodes wait for a prompt', () => {
    const core = fresh();
    const first = core.submit({ prompt: [1], maxTokens: 20, temperature: 0 });
    core.step();
    core.submit({ prompt: Array.from({ length: 60 }, (_, i) => i % 16), temperature: 0 });
    for (let steps = 1; steps <= 10; steps++) {
      core.step();
      expect(first.tokens).toHaveLength(1 + steps);
    }
  });

  it('lets a short prompt pass a long one', () => {
    const core = fresh({ pages: 200 });
    const long = core.submit({ prompt: Array.from({ length: 400 }, (_, i) => i % 16), maxTokens: 1 });
    core.step();
    const short = core.submit({ prompt: [5, 5, 5], maxTokens: 1 });
    core.step();
    core.step();
    expect([short.reason, long.reason]).toEqual(['length', undefined]);
    core.finish();
    expect(long.reason).toBe('length');
  });

  it('gives an old long prompt every other step while short ones keep coming', () => {
    const core = fresh({ pages: 200 }, { maxBatch: 64 });
    const long = core.submit({ prompt: Array.from({ length: 160 }, (_, i) => i % 16), maxTokens: 1 });
    const random = new Random(9);
    for (let steps = 0; steps < 21; steps++) {
      core.submit({ prompt: Array.from({ length: 16 }, () => random.below(16)), maxTokens: 1 });
      core.step();
    }
    expect(long.reason).toBe('length');
  });

  it('holds as many sequences as it may, and refuses more than the queue takes', () => {
    const core = fresh({}, { maxBatch: 2, maxQueue: 1 });
    const request = { prompt: [1, 2], maxTokens: 3 };
    for (let i = 0; i < 3; i++) core.submit(request);
    expect(() => core.submit(request)).toThrow(QueueFullError);
    core.step();
    expect(core.core.stats()).toMatchObject({ running: 2, waiting: 1 });
    core.finish();
    expect(core.run(request)).toHaveLength(3);
  });

  it('ends at an end token, which is not part of the text, and at the length', () => {
    const runner = new FakeRunner();
    const tokens = new CheckedCore(runner).run({ prompt: [1], maxTokens: 30, temperature: 0 });
    const end = tokens[4]!;
    const core = fresh();
    const ended = core.submit({ prompt: [1], maxTokens: 30, temperature: 0, endTokens: [end] });
    core.finish();
    expect(ended.reason).toBe('stop');
    expect(ended.tokens).toEqual(tokens.slice(0, tokens.indexOf(end)));
  });

  it('ends one sequence whose logits are no numbers, and no other', () => {
    const runner = new FakeRunner({ spread: 2 });
    const core = new CheckedCore(runner);
    const { step } = runner;
    runner.step = (batch) => {
      const result = step.call(runner, batch);
      (result.logits.data as Float32Array).fill(Number.NaN, 0, 16);
      return result;
    };
    const [broken, whole] = [core.submit({ prompt: [1] }), core.submit({ prompt: [2] })];
    core.step();
    expect(broken.reason).toEqual(new Error('the model computed NaN as its largest logit'));
    expect(whole.tokens).toHaveLength(1);
  });
});
