import OpenAI, { APIError } from 'openai';
import { describe, expect, it } from 'vitest';
import { checkExposure } from '../../src/serve/server.js';
import { serveScript, until } from './server.js';

const model = 'scripted';
const messages = [{ role: 'user', content: 'Hi' }];

/** What is wrong with a request, and how OpenAI would say it. */
const WRONG: [what: string, path: string, body: object, error: object][] = [
  [
    'an unknown parameter',
    'completions',
    { prompt: 'a', foo: 1 },
    { param: 'foo', code: 'unknown_parameter' },
  ],
  ['no prompt', 'completions', {}, { param: 'prompt', code: 'missing_required_parameter' }],
  ['a prompt of the wrong type', 'completions', { prompt: 5 }, { param: 'prompt', code: 'invalid_type' }],
  [
    'a prompt of mixed types',
    'completions',
    { prompt: ['a', 5] },
    { param: 'prompt[1]', code: 'invalid_type' },
  ],
  ['no prompts', 'completions', { prompt: [] }, { param: 'prompt' }],
  ['an unknown token', 'completions', { prompt: [1024] }, { param: 'prompt', code: 'invalid_value' }],
  ['a token that is none', 'completions', { prompt: [1.5] }, { param: 'prompt[0]', code: 'invalid_type' }],
  [
    'a temperature too high',
    'completions',
    { prompt: 'a', temperature: 3 },
    { param: 'temperature', code: 'decimal_above_max_value' },
  ],
  [
    'a temperature that is none',
    'completions',
    { prompt: 'a', temperature: 'hot' },
    { param: 'temperature', code: 'invalid_type' },
  ],
  ['too many alternatives', 'completions', { prompt: 'a', n: 129 }, { param: 'n' }],
  ['more sequences than fit', 'completions', { prompt: ['a', 'b'], n: 100 }, { param: 'n' }],
  [
    'a biased token that is none',
    'completions',
    { prompt: 'a', logit_bias: { x: 1 } },
    { param: 'logit_bias.x' },
  ],
  ['a bias out of range', 'completions', { prompt: 'a', logit_bias: { 5: 101 } }, { param: 'logit_bias.5' }],
  [
    'a bias for an unknown token',
    'completions',
    { prompt: 'a', logit_bias: { 1024: 1 } },
    { param: 'logit_bias' },
  ],
  ['an empty stop string', 'completions', { prompt: 'a', stop: [''] }, { param: 'stop[0]' }],
  ['usage without a stream', 'completions', { prompt: 'a', stream_options: {} }, { param: 'stream_options' }],
  [
    'a suffix',
    'completions',
    { prompt: 'a', suffix: 'b' },
    { param: 'suffix', code: 'unsupported_parameter' },
  ],
  [
    'a choice among more',
    'completions',
    { prompt: 'a', best_of: 2 },
    { param: 'best_of', code: 'unsupported_value' },
  ],
  [
    'a prompt beyond the context',
    'completions',
    { prompt: Array(600).fill(1) },
    { param: 'prompt', code: 'context_length_exceeded' },
  ],
  ['no messages', 'chat/completions', { messages: [] }, { param: 'messages' }],
  [
    'an unknown role',
    'chat/completions',
    { messages: [{ role: 'king', content: '' }] },
    { param: 'messages[0].role' },
  ],
  [
    'a message without content',
    'chat/completions',
    { messages: [{ role: 'user' }] },
    { param: 'messages[0].content', code: 'missing_required_parameter' },
  ],
  [
    'an image',
    'chat/completions',
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
    { param: 'messages[0].content[0].type', code: 'invalid_value' },
  ],
  [
    'tools',
    'chat/completions',
    { messages, tools: [{ type: 'function', function: { name: 'f' } }] },
    { param: 'tools[0]', code: 'unsupported_parameter' },
  ],
  ['top_logprobs alone', 'chat/completions', { messages, top_logprobs: 3 }, { param: 'top_logprobs' }],
  [
    'an answer in XML',
    'chat/completions',
    { messages, response_format: { type: 'xml' } },
    { param: 'response_format.type', code: 'invalid_value' },
  ],
  [
    'a schema that is none',
    'chat/completions',
    { messages, response_format: { type: 'json_schema', json_schema: { name: 'a', schema: 5 } } },
    { param: 'response_format.json_schema.schema', code: 'invalid_type' },
  ],
  [
    'a conversation beyond the context',
    'chat/completions',
    { messages: [{ role: 'user', content: 'many words '.repeat(400) }] },
    { param: 'messages', code: 'context_length_exceeded' },
  ],
];

describe('a request that is wrong', () => {
  it('gets 400 and the field by name', async () => {
    const { client, engine } = await serveScript();
    for (const [what, path, body, error] of WRONG) {
      const failure = (await client
        .post(`/${path}`, { body: { model, ...body } })
        .catch((e: APIError) => e)) as APIError;
      expect([what, failure.status], what).toEqual([what, 400]);
      expect(failure.error, what).toMatchObject({ type: 'invalid_request_error', ...error });
      expect(failure.message.length, what).toBeGreaterThan(20);
    }
    expect(engine.requests).toEqual([]);
  });

  it('gets 404 for another model or path and 405 for another method', async () => {
    const { client, url } = await serveScript();
    await expect(client.completions.create({ model: 'gpt-5', prompt: 'a' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
    await expect(client.models.retrieve('gpt-5')).rejects.toMatchObject({ status: 404 });
    await expect(client.embeddings.create({ model, input: 'a' })).rejects.toMatchObject({ status: 404 });
    const wrongMethod = await fetch(`${url}/v1/completions`);
    expect([wrongMethod.status, wrongMethod.headers.get('allow')]).toEqual([405, 'POST']);
  });
});

describe('failures of the engine', () => {
  it('answers 500 without saying more than that, and reports it', async () => {
    const { client, failures } = await serveScript({ failAfter: 0, failure: new Error('secret detail') });
    const failure = await client.completions.create({ model, prompt: 'a' }).catch((e) => e);
    expect(failure).toMatchObject({ status: 500, error: { type: 'server_error' } });
    expect(failure.message).not.toContain('secret');
    expect(failures).toEqual([new Error('secret detail')]);
  });

  it('ends a stream that has begun with an error event', async () => {
    const { client } = await serveScript({ failAfter: 2 });
    const stream = await client.completions.create({ model, prompt: 'a', stream: true });
    const texts: string[] = [];
    const reading = async () => {
      for await (const chunk of stream) texts.push(chunk.choices[0]!.text);
    };
    await expect(reading()).rejects.toBeInstanceOf(APIError);
    expect(texts).toEqual(['Hello', ',']);
  });

  it('gives up after the time that a request may take', async () => {
    const { client, engine } = await serveScript({}, { limits: { requestSeconds: 0.05 } });
    engine.hold();
    await expect(client.completions.create({ model, prompt: 'a' })).rejects.toMatchObject({ status: 504 });
    await until(() => engine.active === 0);
  });
});

describe('overload', () => {
  it('answers 429 with Retry-After, to a stream as well, and goes on when there is room', async () => {
    const { client, engine } = await serveScript({}, { maxBatch: 2, maxQueue: 1 });
    engine.hold();
    const first = client.completions.create({ model, prompt: 'a', n: 3 });
    first.catch(() => {});
    await until(() => engine.active === 3);
    for (const stream of [false, true]) {
      const failure = await client.completions.create({ model, prompt: 'b', stream }).catch((e) => e);
      expect(failure).toMatchObject({ status: 429, code: 'rate_limit_exceeded', type: 'rate_limit_error' });
      expect(Number(failure.headers.get('retry-after'))).toBeGreaterThan(0);
    }
    engine.release();
    expect((await first).choices).toHaveLength(3);
    expect((await client.completions.create({ model, prompt: 'b' })).choices).toHaveLength(1);
  });

  it('answers 429 where the engine itself is full', async () => {
    const { client, engine } = await serveScript({ capacity: 1 });
    engine.hold();
    const first = client.completions.create({ model, prompt: 'a' });
    await until(() => engine.active === 1);
    await expect(client.completions.create({ model, prompt: 'b' })).rejects.toMatchObject({ status: 429 });
    engine.release();
    await first;
  });

  it('is waited out by the client by itself', async () => {
    const { url, engine } = await serveScript({}, { maxBatch: 1, maxQueue: 0 });
    const patient = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 3 });
    engine.hold();
    const first = patient.completions.create({ model, prompt: 'a' });
    await until(() => engine.active === 1);
    const second = patient.completions.create({ model, prompt: 'b' });
    engine.release();
    expect((await Promise.all([first, second])).map(({ choices }) => choices.length)).toEqual([1, 1]);
  });
});

describe('access', () => {
  it('asks for the key in constant time, but for health and page', async () => {
    const { url, client } = await serveScript({}, { apiKey: 'correct horse' });
    expect((await client.models.list()).data).toHaveLength(1);
    for (const apiKey of ['correct horsf', 'correct', 'correct horse battery']) {
      const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
      await expect(stranger.models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
      await expect(stranger.completions.create({ model, prompt: 'a' })).rejects.toMatchObject({
        status: 401,
      });
    }
    expect((await fetch(`${url}/metrics`)).status).toBe(401);
    expect((await fetch(`${url}/v1/models`)).status).toBe(401);
    expect((await fetch(`${url}/health`)).status).toBe(200);
    expect((await fetch(url)).status).toBe(200);
  });

  it('is refused beyond this machine without a key, unless told otherwise', () => {
    expect(() => checkExposure('0.0.0.0', undefined, false)).toThrow(/--api-key.*--allow-public/);
    expect(() => checkExposure('::', undefined, false)).toThrow();
    expect(() => checkExposure('192.168.1.5', undefined, false)).toThrow();
    expect(() => checkExposure('localhost.example.com', undefined, false)).toThrow();
    for (const [host, key, open] of [
      ['0.0.0.0', 'key', false],
      ['0.0.0.0', undefined, true],
      ['127.0.0.1', undefined, false],
      ['localhost', undefined, false],
      ['::1', undefined, false],
    ] as const)
      expect(() => checkExposure(host, key, open)).not.toThrow();
  });
});

it('names the length of a prompt that is too long', async () => {
  const { client } = await serveScript();
  const failure = await client.completions.create({ model, prompt: Array(600).fill(1) }).catch((e) => e);
  expect(failure.message).toContain(
    'maximum context length is 512 tokens. However, your prompt resulted in 600',
  );
});
