import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { UserError } from '../../src/errors.js';
import type { ThreadedPrompts } from '../../src/serve/prompt-threads.js';
import { ROOT } from '../cli/run.js';
import { goldenPath } from '../text/goldens.js';
import { chatIdsOf, idsOf } from './server.js';

/** The built module: threads run built code. */
const { ThreadedPrompts: Prompts } = (await import(`${ROOT}dist/serve/prompt-threads.js`)) as {
  ThreadedPrompts: typeof ThreadedPrompts;
};

/** Says its messages, refuses kings, and never ends when told so. */
const TEMPLATE = `{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
{%- if m.content == 'forever' %}{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}{% endif %}
{{- m.content }}|{% endfor %}`;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-prompts-'));
  copyFileSync(goldenPath('tokenizer.json'), path.join(folder, 'tokenizer.json'));
  writeFileSync(path.join(folder, 'tokenizer_config.json'), JSON.stringify({ chat_template: TEMPLATE }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function open(where: string, limitSeconds?: number): Promise<ThreadedPrompts> {
  const prompts = await Prompts.open(where, limitSeconds);
  onTestFinished(() => prompts.close());
  return prompts;
}

const user = (content: string) => [{ role: 'user' as const, content }];

it('reads prompts in order, as the tokenizer and the template say', async () => {
  const prompts = await open(folder);
  expect(prompts.hasChatTemplate).toBe(true);
  const [text, chat, back] = await Promise.all([
    prompts.text('Hello world'),
    prompts.conversation([...user('a'), ...user('b')], {}),
    prompts.decode(idsOf('back again')),
  ]);
  expect(text).toEqual(idsOf('Hello world'));
  expect(chat).toEqual(chatIdsOf('a|b|'));
  expect(back).toBe('back again');
});

it('passes on what the template refuses and what cannot be opened', async () => {
  const prompts = await open(folder);
  const refused = prompts.conversation([{ role: 'system', content: '' }], {});
  await expect(refused).rejects.toThrow(/no system/);
  await expect(refused).rejects.toMatchObject({ name: UserError.name });
  await expect(Prompts.open(path.join(folder, 'nowhere'))).rejects.toThrow(/cannot read .*nowhere/);
});

it('gives up a prompt without end, and answers those behind it', async () => {
  const prompts = await open(folder, 2);
  const endless = prompts.conversation(user('forever'), {});
  const behind = prompts.text('Hello');
  await expect(endless).rejects.toThrow(/longer to read than the 2 s/);
  expect(await behind).toEqual(idsOf('Hello'));
  expect(await prompts.text('Hello')).toEqual(idsOf('Hello'));
});
