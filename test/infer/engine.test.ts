import { beforeAll, describe, expect, it } from 'vitest';
import { loadAddon } from '../../src/backend/native/addon.js';
import type { Engine, EngineOptions, GenerateEvent, GenerateRequest } from '../../src/infer/engine.js';
import type { LocalEngine } from '../../src/infer/local-engine.js';
import { Random } from '../../src/numerics/random.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { modelFolder } from './model-folder.js';

type Openers = typeof import('../../src/infer/open-engine.js') &
  typeof import('../../src/infer/worker-engine.js');
// The built files: threads run those.
const DIST = '../../dist/infer';
const { openEngine } = (await import(`${DIST}/open-engine.js`)) as Openers;
const { openEngineInWorker } = (await import(`${DIST}/worker-engine.js`)) as Openers;

// FP32 throughout: where a prompt is cut must not matter, and a cache in BF16 rounds what is read behind the cut.
const REFERENCE: EngineOptions = {
  backend: 'reference',
  cache: 'fp32',
  contextTokens: 128,
  speculative: true,
};
const BACKENDS = loadAddon() ? (['reference', 'native'] as const) : (['reference'] as const);
const GREEDY = { temperature: 0, ignoreEos: true };

interface Answer {
  text: string;
  ids: number[];
  events: GenerateEvent[];
  done: GenerateEvent & { type: 'done' };
}

async function read(events: AsyncIterable<GenerateEvent>): Promise<Answer> {
  const all: GenerateEvent[] = [];
  for await (const event of events) all.push(event);
  const texts = all.filter((event) => event.type === 'text');
  return {
    text: texts.map(({ text }) => text).join(''),
    ids: texts.flatMap(({ ids }) => ids),
    events: all,
    done: all.at(-1) as Answer['done'],
  };
}

let folder: string;
let tokenizer: Tokenizer;
beforeAll(async () => {
  folder = await modelFolder();
  tokenizer = Tokenizer.fromFolder(folder);
});

async function withEngine<T>(options: EngineOptions, use: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await openEngine(folder, { ...REFERENCE, ...options });
  try {
    return await use(engine);
  } finally {
    await engine.close();
  }
}

const ask = (request: GenerateRequest, options: EngineOptions = {}) =>
  withEngine(options, (engine) => read(engine.generate(request)));

describe('an engine', () => {
  it('streams text whose tokens add up, and counts them', async () => {
    const prompt = 'The state of the Union';
    const { text, ids, done } = await ask({ prompt, maxTokens: 12, ...GREEDY }, { speculative: false });
    expect(ids).toHaveLength(12);
    expect(text).toBe(tokenizer.decode(ids, { skipSpecialTokens: true }));
    expect(done).toMatchObject({
      reason: 'length',
      usage: {
        promptTokens: tokenizer.encode(prompt).length,
        cachedTokens: 0,
        completionTokens: 12,
        draftedTokens: 0,
      },
    });
  });

  it.each(BACKENDS)('writes the same with drafts as without: %s', async (backend) => {
    const request = { prompt: 'The state', maxTokens: 40, ...GREEDY };
    const plain = await ask(request, { backend, speculative: false });
    const drafted = await ask(request, { backend });
    expect(drafted.ids).toEqual(plain.ids);
    expect(drafted.done.usage.draftedTokens).toBeGreaterThan(0);
  });

  it.each(BACKENDS)('gives each of many requests what it gives them alone: %s', async (backend) => {
    const random = new Random(1);
    const requests = Array.from(
      { length: 12 },
      (_, seed): GenerateRequest => ({
        prompt: 'The state of the Union is strong.'.slice(0, 1 + random.below(33)),
        maxTokens: 1 + random.below(20),
        seed,
        topP: 0.9,
      }),
    );
    const alone: number[][] = [];
    for (const request of requests) alone.push((await ask(request, { backend })).ids);
    const together = await withEngine({ backend, maxBatch: 5 }, (engine) =>
      Promise.all(requests.map((request) => read(engine.generate(request)))),
    );
    expect(together.map(({ ids }) => ids)).toEqual(alone);
  });

  it('finds the turn before in the cache, and answers as without it', async () => {
    const first = { prompt: 'The state of the Union', maxTokens: 20, ...GREEDY };
    await withEngine({}, async (engine) => {
      const { ids } = await read(engine.generate(first));
      const prompt = [
        ...tokenizer.encode(first.prompt),
        ...ids,
        ...tokenizer.encode(' is', { addSpecialTokens: false }),
      ];
      const request = { prompt, maxTokens: 20, ...GREEDY };
      const warm = await read(engine.generate(request));
      const { cachedTokens, promptTokens } = warm.done.usage;
      expect(promptTokens - cachedTokens).toBeLessThanOrEqual(4);
      expect(warm.ids).toEqual((await ask(request)).ids);
    });
  });

  it('ends at a stop string and gives out no part of it', async () => {
    const request = { prompt: 'The state', maxTokens: 60, ...GREEDY };
    const { text } = await ask(request);
    const stop = text.slice(20, 24);
    const stopped = await ask({ ...request, stop: [stop, 'never'] });
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(stopped.done.reason).toBe('stop');
    for (const event of stopped.events) if (event.type === 'text') expect(text).toContain(event.text);
  });

  it('reports log-probabilities with the bytes of the tokens', async () => {
    const { events, ids, text } = await ask({ prompt: 'The', maxTokens: 8, logprobs: 3, ...GREEDY });
    const details = events.flatMap((event) => (event.type === 'text' ? (event.tokens ?? []) : []));
    expect(details.map(({ id }) => id)).toEqual(ids);
    for (const { id, logprob, top } of details) {
      expect(top[0]).toMatchObject({ id, logprob });
      expect(top).toHaveLength(3);
    }
    const visible = details.filter(({ id }) => !tokenizer.isSpecial(id));
    const bytes = Buffer.from(visible.flatMap(({ bytes }) => bytes));
    expect(new TextDecoder().decode(bytes)).toBe(text);
  });

  it('reports those of the prompt as it would those of new tokens', async () => {
    const prompt = [...tokenizer.encode('The')];
    const { ids, events } = await ask({ prompt, maxTokens: 8, logprobs: 2, ...GREEDY });
    const details = events.flatMap((event) => (event.type === 'text' ? (event.tokens ?? []) : []));
    const scored = await ask({ prompt: [...prompt, ...ids], maxTokens: 0, promptLogprobs: 2 });
    expect(scored.done).toMatchObject({ reason: 'length', usage: { completionTokens: 0 } });
    const [first, ...others] = scored.events.flatMap((event) =>
      event.type === 'text' ? (event.prompt ?? []) : [],
    );
    expect(first).toEqual({ id: prompt[0], text: expect.any(String), bytes: expect.any(Array) });
    const again = others.slice(prompt.length - 1);
    expect(again.map(({ id, top }) => [id, top!.map((one) => one.id)])).toEqual(
      details.map(({ id, top }) => [id, top.map((one) => one.id)]),
    );
    // FP32 throughout; a prompt's attention is computed in another order than a token's.
    for (const [i, { logprob }] of again.entries()) expect(logprob).toBeCloseTo(details[i]!.logprob, 4);
  });

  it.each<[GenerateRequest, RegExp]>([
    [{ prompt: [] }, /the prompt is empty/],
    [{ prompt: [5, 304] }, /prompt: 304 is no token id; they go from 0 to 303/],
    [{ prompt: Array(128).fill(5) }, /the prompt has 128 tokens, the context 128; shorten/],
    [{ prompt: 'x', maxTokens: 0 }, /maxTokens is 0: give a whole number of at least 1/],
    [{ prompt: 'x', temperature: -1 }, /temperature is -1/],
    [{ prompt: 'x', logprobs: 21 }, /logprobs is 21: give a whole number from 0 to 20/],
    [{ prompt: 'x', stop: [''] }, /stop: an empty string/],
  ])('refuses what it cannot do: %j', async (request, message) => {
    await withEngine({}, async (engine) => {
      const error = await read(engine.generate(request)).catch((thrown: Error) => thrown);
      expect(error).toMatchObject({ name: 'UserError', message: expect.stringMatching(message) });
    });
  });

  it('answers to a full queue with QueueFullError', async () => {
    await withEngine({ maxBatch: 1, maxQueue: 1 }, async (engine) => {
      const request = { prompt: 'The', maxTokens: 2, ...GREEDY };
      const three = [0, 1, 2].map(() => read(engine.generate(request)));
      await expect(three[2]).rejects.toThrow(/run or wait already; try again later/);
      expect((await Promise.all(three.slice(0, 2))).map(({ ids }) => ids.length)).toEqual([2, 2]);
    });
  });

  it.each([
    [{ contextTokens: 513 }, /contextTokens is 513; max_position_embeddings in config.json is 512/],
    [{ contextTokens: 100, cacheTokens: 50 }, /cacheTokens \(50\) is less than one context \(100\)/],
    [{ maxBatch: 0 }, /maxBatch is 0: give a whole number of at least 1/],
  ])('is not opened with %j', async (options, message) => {
    await expect(openEngine(folder, options)).rejects.toThrow(message);
  });
});

describe('leaving early', () => {
  const long = { prompt: 'The state', maxTokens: 100, ...GREEDY };

  it('frees the slot when the reader stops, when the signal says so, and when it said so before', async () => {
    await withEngine({}, async (engine) => {
      for await (const event of engine.generate(long)) if (event.type === 'text') break;
      expect(await engine.stats()).toMatchObject({ running: 0, waiting: 0 });
      const abort = new AbortController();
      const answer = read(engine.generate(long, abort.signal));
      await new Promise((resolve) => setImmediate(resolve));
      abort.abort();
      expect((await answer).done.reason).toBe('cancelled');
      const late = await read(engine.generate(long, abort.signal));
      expect(late.done).toMatchObject({ reason: 'cancelled', usage: { completionTokens: 0 } });
      expect(await engine.stats()).toMatchObject({ running: 0, waiting: 0 });
    });
  });

  it('is not possible for an engine: it closes when the running requests have ended', async () => {
    const engine = await openEngine(folder, REFERENCE);
    const answer = read(engine.generate({ ...long, maxTokens: 10 }));
    const closed = engine.close();
    expect((await answer).ids).toHaveLength(10);
    await closed;
    await expect(read(engine.generate(long))).rejects.toThrow('the engine is closed');
  });

  it('leaves no page behind in a soak of short requests with cancels', async () => {
    const random = new Random(3);
    const engine = (await openEngine(folder, { ...REFERENCE, cacheTokens: 256 })) as LocalEngine;
    const one = async (seed: number) => {
      const prompt = 'The state of the Union'.slice(0, 1 + random.below(22));
      const events = engine.generate({ prompt, maxTokens: 1 + random.below(6), seed });
      const patience = random.below(3) === 0 ? random.below(3) : 100;
      let seen = 0;
      for await (const _ of events) if (++seen > patience) break;
    };
    for (let round = 0; round < 8; round++) {
      await Promise.all(Array.from({ length: 25 }, (_, i) => one(100 * round + i)));
      engine.core.scheduler.verify();
    }
    expect(await engine.stats()).toMatchObject({ running: 0, waiting: 0 });
    await engine.close();
  });
});

describe('an engine in a worker', () => {
  it('answers as one in this thread, refuses as it does, and leaves no thread', async () => {
    const engine = await openEngineInWorker(folder, { ...REFERENCE, maxBatch: 1, maxQueue: 1 });
    const request = { prompt: 'The state', maxTokens: 10, ...GREEDY };
    const [here, there] = [await ask(request), await read(engine.generate(request))];
    expect([there.text, there.ids]).toEqual([here.text, here.ids]);
    expect(engine.info).toMatchObject({
      name: folder.split('/').at(-1),
      contextTokens: 128,
      speculative: true,
    });
    await expect(read(engine.generate({ prompt: [] }))).rejects.toMatchObject({ name: 'UserError' });
    const three = [0, 1, 2].map(() => read(engine.generate(request)));
    await expect(three[2]).rejects.toMatchObject({ name: 'QueueFullError' });
    await Promise.all(three.slice(0, 2));
    for await (const event of engine.generate({ ...request, maxTokens: 100 }))
      if (event.type === 'text') break;
    expect(await engine.stats()).toMatchObject({
      running: 0,
      waiting: 0,
      generatedTokens: expect.any(Number),
    });
    await engine.close();
    await expect(read(engine.generate(request))).rejects.toThrow('the engine is closed');
  });

  it('says why it cannot be opened', async () => {
    await expect(openEngineInWorker('/nowhere')).rejects.toThrow(/cannot read \/nowhere\/config.json/);
  });
});
