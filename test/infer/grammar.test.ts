import { beforeAll, describe, expect, it } from 'vitest';
import type { Engine, GenerateRequest, ResponseFormat } from '../../src/infer/engine.js';
import { modelFolder } from './model-folder.js';

// The built files: the grammar's thread runs those.
const { openEngine } = (await import(
  `${'../../dist'}/infer/open-engine.js`
)) as typeof import('../../src/infer/open-engine.js');

const PERSON = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 5 },
    age: { type: 'integer', minimum: 0, maximum: 99 },
    tags: { type: 'array', items: { enum: ['a', 'b'] }, minItems: 1, maxItems: 3 },
  },
  required: ['name', 'age', 'tags'],
  additionalProperties: false,
};

let folder: string;
beforeAll(async () => {
  folder = await modelFolder();
});

async function read(
  engine: Engine,
  request: Partial<GenerateRequest>,
): Promise<{ text: string; reason: string }> {
  let [text, reason] = ['', ''];
  for await (const event of engine.generate({ prompt: 'The', maxTokens: 400, ...request })) {
    if (event.type === 'text') text += event.text;
    else reason = event.reason;
  }
  return { text, reason };
}

describe('JSON by grammar', () => {
  const schema: ResponseFormat = { type: 'json_schema', schema: PERSON };

  it('makes a model of random weights write what the schema says, each with its own', async () => {
    const engine = await openEngine(folder, { backend: 'reference' });
    const seeds = [1, 2, 3, 4];
    const answers = await Promise.all([
      ...seeds.map((seed) => read(engine, { seed, responseFormat: schema })),
      read(engine, { seed: 5, responseFormat: { type: 'json_schema', schema: { enum: ['yes', 'no'] } } }),
      read(engine, { seed: 6, maxTokens: 5, ignoreEos: true }),
    ]);
    await engine.close();
    for (const { text, reason } of answers.slice(0, 4)) {
      expect(reason).toBe('stop');
      const { name, age, tags } = JSON.parse(text);
      expect([typeof name, Number.isInteger(age), age >= 0 && age <= 99]).toEqual(['string', true, true]);
      for (const tag of tags) expect(['a', 'b']).toContain(tag);
    }
    expect(['"yes"', '"no"']).toContain(answers[4]!.text);
    expect(answers[5]!.reason).toBe('length');
  });

  it('writes any object where that is all that is asked', async () => {
    const engine = await openEngine(folder, { backend: 'reference' });
    // Towards ends of things: an unconstrained random model rarely closes what it opened.
    const { text } = await read(engine, {
      seed: 2,
      temperature: 0.5,
      responseFormat: { type: 'json_object' },
    });
    await engine.close();
    expect(text.trimStart()[0]).toBe('{');
  });

  it('goes on after a schema that the library gives up on, and frees what leaves early', async () => {
    const engine = await openEngine(folder, { backend: 'reference' });
    const wrong = read(engine, { responseFormat: { type: 'json_schema', schema: { type: 'nothing' } } });
    await expect(wrong).rejects.toMatchObject({
      name: 'UserError',
      message: expect.stringMatching(/the schema cannot be used: Unsupported type "nothing"/),
    });
    for await (const _ of engine.generate({ prompt: 'The', responseFormat: schema })) break;
    const { text } = await read(engine, { seed: 1, responseFormat: schema });
    expect(JSON.parse(text)).toHaveProperty('name');
    expect(await engine.stats()).toMatchObject({ running: 0, waiting: 0 });
    await engine.close();
  });

  it.each([
    [[], /schema must be a JSON schema, an object/],
    [
      { enum: Array.from({ length: 9000 }, (_, i) => `value ${i}`) },
      /the schema has \d+ characters; 65536 are/,
    ],
  ])('refuses what is no schema, or too large', async (given, message) => {
    const engine = await openEngine(folder, { backend: 'reference' });
    const answer = read(engine, { responseFormat: { type: 'json_schema', schema: given } });
    await expect(answer).rejects.toThrow(message);
    await engine.close();
  });
});
