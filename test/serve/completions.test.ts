import { describe, expect, it } from 'vitest';
import { idsOf, PIECES, REPLY, serveScript, until } from './server.js';

/** The official client, as a user drives it. */
describe('/v1/completions', () => {
  it('answers with text, reason and usage', async () => {
    const { client, engine } = await serveScript();
    const answer = await client.completions.create({ model: 'scripted', prompt: 'Once', max_tokens: 50 });
    expect(answer).toMatchObject({ object: 'text_completion', model: 'scripted' });
    expect(answer.id).toMatch(/^cmpl-/);
    expect(answer.choices).toEqual([{ index: 0, text: REPLY, logprobs: null, finish_reason: 'stop' }]);
    const prompt = idsOf('Once').length;
    expect(answer.usage).toEqual({
      prompt_tokens: prompt,
      completion_tokens: PIECES.length,
      total_tokens: prompt + PIECES.length,
      prompt_tokens_details: { cached_tokens: 1 },
    });
    expect(engine.requests).toEqual([{ prompt: idsOf('Once'), maxTokens: 50 }]);
  });

  it('streams pieces as they come, with usage where asked for', async () => {
    const { client, engine } = await serveScript();
    engine.hold();
    const pending = client.completions.create({
      model: 'scripted',
      prompt: 'Once',
      stream: true,
      stream_options: { include_usage: true },
    });
    engine.release();
    const chunks = [];
    for await (const chunk of await pending) chunks.push(chunk);
    expect(chunks.map((c) => c.choices[0]?.text).slice(0, -2)).toEqual(PIECES);
    expect(chunks.at(-2)!.choices[0]).toMatchObject({ text: '', finish_reason: 'stop' });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: PIECES.length } });
    expect(chunks.slice(0, -1).every((c) => c.usage === null)).toBe(true);
    expect(new Set(chunks.map((c) => c.id)).size).toBe(1);
  });

  it('adds 16 tokens where max_tokens is absent, and none where it is 0', async () => {
    const { client, engine } = await serveScript();
    await client.completions.create({ model: 'scripted', prompt: 'a' });
    expect(engine.requests[0]!.maxTokens).toBe(16);
    const echo = await client.completions.create({
      model: 'scripted',
      prompt: 'abc',
      max_tokens: 0,
      echo: true,
    });
    expect(echo.choices[0]).toMatchObject({ text: 'abc', finish_reason: 'length' });
    expect(engine.requests).toHaveLength(1);
  });

  it('asks the engine for no more than the context has room for', async () => {
    const { client, engine } = await serveScript();
    await client.completions.create({ model: 'scripted', prompt: [1, 2, 3], max_tokens: 10_000 });
    expect(engine.requests[0]!.maxTokens).toBe(512 - 3);
  });

  it('cuts at max_tokens with the reason "length"', async () => {
    const { client } = await serveScript();
    const answer = await client.completions.create({ model: 'scripted', prompt: 'a', max_tokens: 2 });
    expect(answer.choices[0]).toMatchObject({ text: 'Hello,', finish_reason: 'length' });
  });

  it('takes several prompts, token prompts, n and echo', async () => {
    const { client, engine } = await serveScript();
    const answer = await client.completions.create({
      model: 'scripted',
      prompt: ['one', 'two two'],
      n: 2,
      echo: true,
      seed: 7,
      max_tokens: 1,
    });
    expect(answer.choices.map(({ index, text }) => [index, text])).toEqual([
      [0, 'oneHello'],
      [1, 'oneHello'],
      [2, 'two twoHello'],
      [3, 'two twoHello'],
    ]);
    expect(engine.requests.map(({ seed }) => seed)).toEqual([7, 8, 7, 8]);
    const prompts = idsOf('one').length + idsOf('two two').length;
    expect(answer.usage).toMatchObject({ prompt_tokens: prompts, completion_tokens: 4 });

    await client.completions.create({ model: 'scripted', prompt: [5, 6, 7] });
    await client.completions.create({ model: 'scripted', prompt: [[5], [6, 7]] });
    expect(engine.requests.slice(-3).map(({ prompt }) => prompt)).toEqual([[5, 6, 7], [5], [6, 7]]);
  });

  it('streams choices of several sequences side by side', async () => {
    const { client } = await serveScript();
    const stream = await client.completions.create({
      model: 'scripted',
      prompt: ['a', 'b'],
      n: 2,
      stream: true,
    });
    const texts = ['', '', '', ''];
    const order: number[] = [];
    for await (const { choices } of stream) {
      texts[choices[0]!.index] += choices[0]!.text;
      order.push(choices[0]!.index);
    }
    expect(texts).toEqual(Array(4).fill(REPLY));
    // None waits for another to end.
    expect(new Set(order.slice(0, 8)).size).toBe(4);
  });

  it('passes every sampling parameter on', async () => {
    const { client, engine } = await serveScript();
    const more = { top_k: 40, min_p: 0.05, repetition_penalty: 1.1, ignore_eos: true };
    await client.completions.create({
      model: 'scripted',
      prompt: 'a',
      temperature: 0.3,
      top_p: 0.9,
      presence_penalty: 0.5,
      frequency_penalty: -0.5,
      logit_bias: { 17: -100 },
      stop: ['zzz', '!'],
      seed: 3,
      ...more,
    });
    expect(engine.requests[0]).toMatchObject({
      temperature: 0.3,
      topP: 0.9,
      topK: 40,
      minP: 0.05,
      repetitionPenalty: 1.1,
      presencePenalty: 0.5,
      frequencyPenalty: -0.5,
      logitBias: { 17: -100 },
      stop: ['zzz', '!'],
      ignoreEos: true,
      seed: 3,
    });
  });

  it('lists log-probabilities in parallel, offsets in characters, impossible ones as -9999', async () => {
    const { client } = await serveScript();
    const { choices } = await client.completions.create({
      model: 'scripted',
      prompt: 'a',
      logprobs: 2,
      max_tokens: 3,
    });
    expect(choices[0]!.logprobs).toEqual({
      tokens: ['Hello', ',', ' wor'],
      token_logprobs: [-0.5, -0.5, -0.5],
      top_logprobs: Array(3).fill({ top0: -1, top1: -9999 }),
      text_offset: [0, 5, 6],
    });
    const stream = await client.completions.create({
      model: 'scripted',
      prompt: 'a',
      logprobs: 0,
      stream: true,
    });
    const offsets = [];
    for await (const chunk of stream) offsets.push(...chunk.choices[0]!.logprobs!.text_offset!);
    expect(offsets.slice(0, 4)).toEqual([0, 5, 6, 10]);
  });
});

describe('echo with logprobs', () => {
  const request = { model: 'scripted', prompt: [5, 6, 7], echo: true, logprobs: 1 };
  const prompt = {
    tokens: ['<5>', '<6>', '<7>'],
    token_logprobs: [null, -0.5, -0.5],
    top_logprobs: [null, { top0: -1 }, { top0: -1 }],
    text_offset: [0, 3, 6],
  };

  it('scores a prompt to which nothing is added, as evaluation harnesses ask', async () => {
    const { client, engine } = await serveScript();
    const { choices } = await client.completions.create({ ...request, max_tokens: 0 });
    expect(choices[0]).toMatchObject({ finish_reason: 'length', logprobs: prompt });
    expect(engine.requests[0]).toMatchObject({ maxTokens: 0, logprobs: 1, promptLogprobs: 1 });
  });

  it('goes on with the new tokens, as a whole and as a stream', async () => {
    const { client } = await serveScript();
    const { choices } = await client.completions.create({ ...request, max_tokens: 2 });
    const whole = choices[0]!.logprobs!;
    expect(whole.tokens).toEqual([...prompt.tokens, 'Hello', ',']);
    expect(whole.text_offset).toEqual([0, 3, 6, 9, 14]);
    const pieces = [];
    for await (const chunk of await client.completions.create({ ...request, max_tokens: 2, stream: true }))
      pieces.push(chunk.choices[0]!);
    expect(pieces[0]).toMatchObject({ logprobs: prompt });
    expect(pieces.flatMap(({ logprobs }) => logprobs!.text_offset)).toEqual(whole.text_offset);
    expect(pieces.map(({ text }) => text).join('')).toBe(choices[0]!.text);
  });
});

describe('a client that goes away', () => {
  it.each([true, false])('frees its slot at once (stream: %s)', async (stream) => {
    const { client, engine } = await serveScript();
    engine.hold();
    const controller = new AbortController();
    const pending = client.completions.create(
      { model: 'scripted', prompt: ['a', 'b'], n: 2, stream },
      { signal: controller.signal },
    );
    pending.catch(() => {});
    await until(() => engine.active === 4);
    controller.abort();
    await until(() => engine.active === 0);
    expect(engine.cancelled).toBe(4);
  });
});
