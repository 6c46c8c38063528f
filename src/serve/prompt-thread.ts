/** The thread of `ThreadedPrompts`: answers questions one after another. */
import { parentPort, workerData } from 'node:worker_threads';
import { UserError } from '../errors.js';
import { ChatTemplate } from '../text/chat-template.js';
import { Tokenizer } from '../text/tokenizer.js';
import type { Question, Reply } from './prompt-threads.js';
import { LocalPrompts, type Prompts } from './prompts.js';

const port = parentPort!;
const say = (reply: Reply) => port.postMessage(reply);

function open(folder: string): Prompts {
  const tokenizer = Tokenizer.fromFolder(folder);
  return new LocalPrompts(tokenizer, ChatTemplate.fromFolder(folder, tokenizer));
}

async function answer(prompts: Prompts, { id, method, args }: Question): Promise<void> {
  try {
    const call = prompts[method] as (...args: unknown[]) => Promise<unknown>;
    say({ id, value: await call.apply(prompts, args) });
  } catch (error) {
    say({ id, error: (error as Error).message, user: error instanceof UserError });
  }
}

try {
  const prompts = open(workerData as string);
  // Questions wait in the port until somebody listens.
  port.on('message', (question: Question) => void answer(prompts, question));
  say({ hasChatTemplate: prompts.hasChatTemplate });
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  say({ error: error.message });
}
