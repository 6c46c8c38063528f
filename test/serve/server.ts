import OpenAI from 'openai';
import { onTestFinished } from 'vitest';
import { LocalPrompts } from '../../src/serve/prompts.js';
import { ApiServer, type ServerOptions } from '../../src/serve/server.js';
import { ChatTemplate, COMPLETION_TEMPLATE } from '../../src/text/chat-template.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { goldenPath } from '../text/goldens.js';
import { type Script, ScriptedEngine } from './scripted-engine.js';

/** What every request of a scripted server gets. */
export const PIECES = ['Hello', ',', ' wor', 'ld', '! ', 'ünï', 'cödé', ' 🌊', '.'];
export const REPLY = PIECES.join('');

const tokenizer = Tokenizer.fromFile(goldenPath('tokenizer.json'));

/** A chat template that a test can read. */
const TEMPLATE =
  "{% for m in messages %}{% if m.content == 'forbidden' %}{{ raise_exception('not that') }}{% endif %}" +
  '<{{ m.role }}>{{ m.content }}{% endfor %}<assistant{% if thinking %} thinks{% endif %}>';

export interface Served {
  engine: ScriptedEngine;
  server: ApiServer;
  url: string;
  client: OpenAI;
  /** What the server reported as its own fault. */
  failures: unknown[];
}

/** Starts a server over a scripted engine on a free port of this machine; it ends with the test. */
export async function serveScript(
  script: Partial<Script> = {},
  options: Partial<ServerOptions> = {},
  hasTemplate = true,
): Promise<Served> {
  const engine = new ScriptedEngine({ pieces: PIECES, ...script });
  const failures: unknown[] = [];
  const source = hasTemplate ? TEMPLATE : COMPLETION_TEMPLATE;
  const template = new ChatTemplate(source, tokenizer, hasTemplate, 'template');
  const server = new ApiServer(
    {
      id: 'scripted',
      engine,
      prompts: new LocalPrompts(tokenizer, template),
    },
    {
      host: '127.0.0.1',
      port: 0,
      maxBatch: 64,
      maxQueue: 64,
      onFailure: (error) => failures.push(error),
      ...options,
    },
  );
  const url = await server.listen();
  onTestFinished(async () => {
    engine.release();
    await server.drain();
  });
  const apiKey = options.apiKey ?? 'none';
  return {
    engine,
    server,
    url,
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }),
    failures,
  };
}

/** Ids that the model of `serveScript` sees for a text. */
export const idsOf = (text: string): number[] => [...tokenizer.encode(text)];

/** Ids of a conversation: templates spell special tokens out, so none are added. */
export const chatIdsOf = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false })];

/** Resolves when the condition holds; the test's own time limit bounds the wait. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
