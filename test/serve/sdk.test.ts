import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';
import { describe, expect, it } from 'vitest';
import { PIECES, REPLY, serveScript } from './server.js';

describe('the Vercel AI SDK', () => {
  it('generates and streams text', async () => {
    const { url } = await serveScript();
    const fathom = createOpenAICompatible({ name: 'fathom', baseURL: `${url}/v1`, includeUsage: true });
    const { text, finishReason, usage } = await generateText({ model: fathom('scripted'), prompt: 'Hi' });
    expect([text, finishReason, usage.outputTokens]).toEqual([REPLY, 'stop', PIECES.length]);

    const { textStream, totalUsage } = streamText({
      model: fathom('scripted'),
      prompt: 'Hi',
      temperature: 0.5,
    });
    const pieces = [];
    for await (const piece of textStream) pieces.push(piece);
    expect(pieces).toEqual(PIECES);
    expect((await totalUsage).outputTokens).toBe(PIECES.length);
  });

  it('sees what is wrong', async () => {
    const { url } = await serveScript();
    const fathom = createOpenAICompatible({ name: 'fathom', baseURL: `${url}/v1` });
    await expect(generateText({ model: fathom('other'), prompt: 'Hi', maxRetries: 0 })).rejects.toThrow(
      "The model 'other' does not exist",
    );
  });
});

describe('the openai client', () => {
  it('lists and retrieves the model', async () => {
    const { client } = await serveScript();
    const models = [];
    for await (const model of client.models.list()) models.push(model);
    expect(models).toEqual([await client.models.retrieve('scripted')]);
    expect(models[0]).toMatchObject({
      id: 'scripted',
      object: 'model',
      owned_by: 'fathom',
      max_model_len: 512,
    });
  });
});
