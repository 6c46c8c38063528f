import { describe, expect, it } from 'vitest';
import { chatIdsOf, PIECES, REPLY, serveScript } from './server.js';

const model = 'scripted';
const messages = [{ role: 'user' as const, content: 'Hi' }];

describe('/v1/chat/completions', () => {
  it('answers with a message, reason and usage', async () => {
    const { client, engine } = await serveScript();
    const answer = await client.chat.completions.create({ model, messages, max_completion_tokens: 30 });
    expect(answer).toMatchObject({ object: 'chat.completion', model });
    expect(answer.id).toMatch(/^chatcmpl-/);
    expect(answer.choices).toEqual([
      {
        index: 0,
        message: { role: 'assistant', content: REPLY, refusal: null },
        logprobs: null,
        finish_reason: 'stop',
      },
    ]);
    expect(answer.usage).toMatchObject({ completion_tokens: PIECES.length });
    expect(engine.requests[0]).toEqual({ prompt: chatIdsOf('<user>Hi<assistant>'), maxTokens: 30 });
  });

  it('streams a role, pieces and a reason', async () => {
    const { client } = await serveScript();
    const stream = await client.chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: 'assistant', content: '' });
    expect(chunks.slice(1, -2).map((c) => c.choices[0]!.delta.content)).toEqual(PIECES);
    expect(chunks.at(-2)!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: PIECES.length } });
  });

  it('works with the stream helper of the client', async () => {
    const { client } = await serveScript();
    const runner = client.chat.completions.stream({ model, messages, n: 2 });
    const { choices } = await runner.finalChatCompletion();
    expect(choices.map(({ message }) => message.content)).toEqual([REPLY, REPLY]);
  });

  it('gives every role and part to the template', async () => {
    const { client, engine } = await serveScript();
    await client.chat.completions.create({
      model,
      messages: [
        { role: 'developer', content: 'Be brief.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'one ' },
            { type: 'text', text: 'two' },
          ],
        },
        { role: 'assistant', content: 'three' },
        { role: 'user', content: 'four' },
      ],
    });
    const text = '<system>Be brief.<user>one two<assistant>three<user>four<assistant>';
    expect(engine.requests[0]!.prompt).toEqual(chatIdsOf(text));
  });

  it('hands variables to the template and reports what it refuses', async () => {
    const { client, engine } = await serveScript();
    await client.chat.completions.create({
      model,
      messages,
      ...{ chat_template_kwargs: { thinking: true } },
    });
    expect(engine.requests[0]!.prompt).toEqual(chatIdsOf('<user>Hi<assistant thinks>'));
    const refused = client.chat.completions.create({
      model,
      messages: [{ role: 'user', content: 'forbidden' }],
    });
    await expect(refused).rejects.toMatchObject({
      status: 400,
      param: 'messages',
      message: expect.stringContaining('not that'),
    });
  });

  it('reports log-probabilities of tokens and of the most likely ones', async () => {
    const { client } = await serveScript();
    const { choices } = await client.chat.completions.create({
      model,
      messages,
      logprobs: true,
      top_logprobs: 1,
      max_tokens: 1,
    });
    expect(choices[0]!.logprobs).toEqual({
      content: [
        {
          token: 'Hello',
          bytes: [72, 101, 108, 108, 111],
          logprob: -0.5,
          top_logprobs: [{ token: 'top0', bytes: [116, 111, 112, 48], logprob: -1 }],
        },
      ],
      refusal: null,
    });
  });

  it('hands the format of the answer to the engine', async () => {
    const { client, engine } = await serveScript();
    const schema = { type: 'object', properties: { a: { type: 'integer' } } };
    const json_schema = { name: 'answer', strict: true, schema };
    for (const response_format of [
      { type: 'json_object' } as const,
      { type: 'json_schema' as const, json_schema },
    ])
      await client.chat.completions.create({ model, messages, response_format });
    expect(engine.requests.map(({ responseFormat }) => responseFormat)).toEqual([
      { type: 'json_object' },
      { type: 'json_schema', schema },
    ]);
  });

  it('fills the context where no limit is given', async () => {
    const { client, engine } = await serveScript({ contextTokens: 100 });
    await client.chat.completions.create({ model, messages });
    expect(engine.requests[0]!.maxTokens).toBe(100 - chatIdsOf('<user>Hi<assistant>').length);
  });
});
