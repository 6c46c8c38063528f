import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { fathom } from '../cli/run.js';
import { type ServerProcess, startServer } from './child.js';
import { makeTinyModel, removeModel } from './tiny-model.js';

let folder: string;
beforeAll(() => {
  folder = makeTinyModel();
});
afterAll(() => removeModel(folder));

/** A server process that ends with the test, and the official client for it. */
async function start(...flags: string[]): Promise<ServerProcess & { client: OpenAI; model: string }> {
  const server = await startServer(folder, '--model-name', 'tiny', ...flags);
  onTestFinished(() => void server.child.kill('SIGKILL'));
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  return { ...server, client, model: 'tiny' };
}

describe('fathom serve on a model', () => {
  it('answers every endpoint, and says the same as a stream and as a whole', async () => {
    const { client, model, url, child, ended } = await start();
    expect((await client.models.list()).data).toMatchObject([{ id: 'tiny', chat_template: true }]);
    const request = { model, prompt: 'The state of', max_tokens: 24, temperature: 0, logprobs: 2 };
    const whole = await client.completions.create(request);
    let text = '';
    const tokens: string[] = [];
    for await (const { choices } of await client.completions.create({ ...request, stream: true })) {
      text += choices[0]!.text;
      tokens.push(...(choices[0]!.logprobs?.tokens ?? []));
    }
    expect(text).toBe(whole.choices[0]!.text);
    expect(tokens).toEqual(whole.choices[0]!.logprobs!.tokens);
    expect(tokens).toHaveLength(24);

    const messages = [{ role: 'user' as const, content: 'Tell me of the state of the union, please.' }];
    const chat = { model, messages, max_tokens: 16, seed: 5, n: 2 };
    const [first, again] = [
      await client.chat.completions.create(chat),
      await client.chat.completions.create(chat),
    ];
    const texts = (answer: typeof first) => answer.choices.map(({ message }) => message.content);
    expect(texts(again)).toEqual(texts(first));
    expect(new Set(texts(first)).size).toBe(2);
    expect(again.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThan(0);

    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: 'ok', running: 0, waiting: 0 });
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^fathom_generated_tokens_total [1-9]/m);
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+ requests in/) });
  });

  it('gives JSON where asked to', async () => {
    const { client, model } = await start();
    const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] };
    const { choices } = await client.chat.completions.create({
      model,
      messages: [{ role: 'user', content: 'Is it?' }],
      max_tokens: 200,
      seed: 1,
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema } },
    });
    expect(JSON.parse(choices[0]!.message.content!)).toEqual({ ok: expect.any(Boolean) });
  });

  it('scores the tokens of a prompt as it would have given them', async () => {
    const { client, model } = await start('--cache', 'fp32');
    const prompt = Array.from({ length: 40 }, (_, i) => 300 + ((i * 37) % 500));
    const request = { model, prompt, max_tokens: 0, echo: true, logprobs: 1 };
    const { logprobs: scored, finish_reason } = (await client.completions.create(request)).choices[0]!;
    expect(finish_reason).toBe('length');
    expect([scored!.token_logprobs![0], scored!.top_logprobs![0]]).toEqual([null, null]);
    for (const at of [1, 17, 39]) {
      const { choices } = await client.completions.create({
        model,
        prompt: prompt.slice(0, at),
        max_tokens: 1,
        logprobs: 0,
        logit_bias: { [prompt[at]!]: 100 },
      });
      expect(choices[0]!.logprobs!.tokens![0]).toBe(scored!.tokens![at]);
      // FP32 weights and cache; a prompt's attention is computed in another order than a token's.
      expect(choices[0]!.logprobs!.token_logprobs![0]).toBeCloseTo(scored!.token_logprobs![at]!, 4);
    }
  });

  it('answers 429 with Retry-After when all places are taken, and serves again when one is free', async () => {
    const { client, model } = await start('--max-batch', '1', '--max-queue', '1');
    const long = { model, prompt: 'On and on', max_tokens: 900, ignore_eos: true, stream: true as const };
    const controller = new AbortController();
    const stream = await client.completions.create({ ...long, n: 2 }, { signal: controller.signal });
    const failure = await client.completions.create({ model, prompt: 'a' }).catch((error) => error);
    expect(failure).toMatchObject({ status: 429, code: 'rate_limit_exceeded' });
    expect(Number(failure.headers.get('retry-after'))).toBeGreaterThan(0);
    controller.abort();
    await expect(
      (async () => {
        for await (const _ of stream);
      })(),
    ).resolves.toBeUndefined();
    const patient = client.withOptions({ maxRetries: 5 });
    const { choices } = await patient.completions.create({ model, prompt: 'a', max_tokens: 1 });
    expect(choices).toHaveLength(1);
  });

  it('holds nothing of requests that went away', async () => {
    const { client, model, url } = await start('--max-batch', '8', '--max-queue', '100');
    const used = async () => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return ['requests_running', 'requests_waiting'].map((name) =>
        Number(new RegExp(`^fathom_${name} (\\d+)`, 'm').exec(text)![1]),
      );
    };
    const requests = Array.from({ length: 60 }, async (_, i) => {
      const controller = new AbortController();
      const body = { model, prompt: `Request ${i}`, max_tokens: 200, ignore_eos: true };
      const stream = await client.completions.create(
        { ...body, stream: true },
        { signal: controller.signal },
      );
      let pieces = 0;
      for await (const _ of stream) if (++pieces > i % 7) controller.abort();
    });
    await Promise.allSettled(requests);
    while ((await used()).some((count) => count > 0));
    const { choices } = await client.completions.create({ model, prompt: 'Still here?', max_tokens: 5 });
    expect(choices).toHaveLength(1);
  });
});

describe('signals', () => {
  const long = {
    model: 'tiny',
    prompt: 'On and on',
    max_tokens: 900,
    stream: true as const,
    ignore_eos: true,
  };

  it('SIGTERM lets what runs end and exits with 0', async () => {
    const { client, child, ended, url } = await start();
    const stream = await client.completions.create(long);
    let reason: string | null = null;
    let signalled = false;
    for await (const { choices } of stream) {
      if (!signalled) signalled = child.kill('SIGTERM');
      reason = choices[0]!.finish_reason;
    }
    expect(reason).toBe('length');
    expect(await ended).toMatchObject({ code: 0, stderr: expect.stringContaining('no new requests') });
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  it('a second one ends it at once', async () => {
    const { client, child, ended } = await start();
    const reading = async () => {
      for await (const _ of await client.completions.create({ ...long, n: 8 })) child.kill('SIGTERM');
    };
    await expect(reading()).rejects.toThrow();
    expect(await ended).toMatchObject({ code: 143 });
  });

  it('SIGKILL leaves nothing behind that keeps the next one from serving', async () => {
    const { client, child, ended, url, model } = await start();
    await client.completions.create({ model, prompt: 'a', max_tokens: 1 });
    child.kill('SIGKILL');
    expect(await ended).toMatchObject({ signal: 'SIGKILL' });
    const next = await start('--port', new URL(url).port);
    expect(next.url).toBe(url);
    expect((await client.completions.create({ model, prompt: 'a', max_tokens: 1 })).choices).toHaveLength(1);
  });
});

describe('what it refuses', () => {
  it('to listen beyond this machine without a key', async () => {
    const { code, stderr } = await fathom(['serve', folder, '--host', '0.0.0.0']);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^fathom: --host 0\.0\.0\.0.*--api-key.*--allow-public/),
    ]);
  });

  it('a port that is taken', async () => {
    const { url } = await start();
    const { port } = new URL(url);
    const { code, stderr } = await fathom(['serve', folder, '--port', port]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(`port ${port} of 127.0.0.1 is taken`)]);
  });

  it('a folder that is no model', async () => {
    const { code, stderr } = await fathom(['serve', 'src']);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^fathom: .*src\/config\.json/)]);
  });
});
