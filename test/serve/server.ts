import OpenAI from 'openai';
import { onTestFinished } from 'vitest';
import { LocalPrompts, type RenderChat } from '../../src/serve/prompts.js';
import { ApiServer, type ServerOptions } from '../../src/serve/server.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { goldenPath } from '../text/goldens.js';
import { type Script, ScriptedEngine } from './scripted-engine.js';

/** What every request of a scripted server gets. */
export const PIECES = ['Hello', ',', ' wor', 'ld', '! ', 'ünï', 'cödé', ' 🌊', '.'];
export const REPLY = PIECES.join('');

const tokenizer = Tokenizer.fromFile(goldenPath('tokenizer.json'));

/** A chat template that a test can read. */
const renderTagged: RenderChat = (messages) =>
  `${messages.map(({ role, content }) => `<${role}>${content}`).join('')}<assistant>`;

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
  chat: { render?: RenderChat | undefined } = { render: renderTagged },
): Promise<Served> {
  const engine = new ScriptedEngine({ pieces: PIECES, ...script });
  const failures: unknown[] = [];
  const server = new ApiServer(
    {
      id: 'scripted',
      engine,
      prompts: new LocalPrompts(tokenizer, chat.render),
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
