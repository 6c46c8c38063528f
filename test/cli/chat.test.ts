import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { modelFolder } from '../infer/model-folder.js';
import { fathom, fathomJson, MAIN } from './run.js';

const ENGINE = ['--backend', 'reference', '--max-tokens', '8', '--seed', '1'];

interface Turn {
  user: string;
  assistant: string;
  reason: string;
  usage: { promptTokens: number; cachedTokens: number; completionTokens: number };
}

let folder: string;
beforeAll(async () => {
  folder = await modelFolder();
});

describe('fathom chat', () => {
  it('answers each line, re-reads nothing of the turns before, and begins anew with /new', async () => {
    const input = 'The state\nof the Union\n\n/new\nThe state\n/exit\nnot read\n';
    const { turns } = (await fathomJson(['chat', folder, ...ENGINE], input)) as unknown as { turns: Turn[] };
    expect(turns.map(({ user }) => user)).toEqual(['The state', 'of the Union', 'The state']);
    const [first, second, third] = turns as [Turn, Turn, Turn];
    expect(third.assistant).toBe(first.assistant);
    // All but the last tokens of the answer, which nothing was computed from.
    const said = first.usage.promptTokens + first.usage.completionTokens;
    expect(second.usage.cachedTokens).toBeGreaterThanOrEqual(said - 2);
    expect(second.usage.promptTokens).toBeGreaterThan(said);
    const { stdout } = await fathom(['chat', folder, ...ENGINE], input);
    expect(stdout).toBe(turns.map(({ assistant }) => `${assistant}\n`).join(''));
  });

  it('says what a conversation is refused for', async () => {
    const { code, stderr } = await fathom(
      ['chat', folder, '--ctx', '8', ...ENGINE],
      'The state of the Union is strong\n',
    );
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/the prompt has \d+ tokens, the context 8; shorten/),
    ]);
  });
});

describe('fathom generate', () => {
  it('ends with what is written when it is interrupted', async () => {
    const endless = ['-p', 'The', '--backend', 'reference', '--max-tokens', '100000', '--ignore-eos'];
    const child = spawn(process.execPath, [MAIN, 'generate', folder, ...endless]);
    let [stdout, stderr] = ['', ''];
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      // More than the prompt: it is at work. A second signal would end it at once.
      if (stdout.length > 3 && !child.killed) child.kill('SIGINT');
    });
    const [code] = (await once(child, 'close')) as [number | null];
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^The[\s\S]+\n$/)]);
    expect(Number(/^(\d+) tokens/.exec(stderr)?.[1])).toBeLessThan(500);
  });

  it('writes JSON by a schema', async () => {
    const schema = path.join(folder, 'schema.json');
    writeFileSync(schema, JSON.stringify({ enum: ['yes', 'no'] }));
    const options = ['-p', 'The', '--json-schema', schema, '--backend', 'reference'];
    const { text, reason } = await fathomJson(['generate', folder, ...options]);
    expect([['yes', 'no'].includes(JSON.parse(text as string)), reason]).toEqual([true, 'stop']);
  });

  it('takes all that shapes the text', async () => {
    const options = [
      '-p',
      'The',
      '--top-k',
      '3',
      '--min-p',
      '0.1',
      '--repetition-penalty',
      '1.1',
      '--stop',
      'zz',
    ];
    const more = [
      '--presence-penalty',
      '-0.1',
      '--frequency-penalty',
      '0.1',
      '--no-speculative',
      '--ignore-eos',
    ];
    const written = await fathomJson(['generate', folder, ...options, ...more, ...ENGINE]);
    expect(written).toMatchObject({
      tokens: expect.any(Array),
      reason: 'length',
      usage: { completionTokens: 8, draftedTokens: 0 },
      tokensPerSecond: expect.any(Number),
    });
  });
});
