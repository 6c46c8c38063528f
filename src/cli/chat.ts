import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { UserError } from '../errors.js';
import type { Engine, Usage } from '../infer/engine.js';
import type { Conversation } from './conversation.js';
import { write } from './generate.js';
import {
  addInferenceOptions,
  addSamplingOptions,
  describeUsage,
  engineOptions,
  type InferenceFlags,
  type SamplingFlags,
  samplingOptions,
} from './inference.js';
import { integer } from './options.js';
import { onEngine, openHere, type ServingRankFlags } from './rank-engine.js';
import { addServingRankOptions } from './ranks.js';
import { runs, type Session } from './session.js';

interface ChatFlags extends InferenceFlags, SamplingFlags, ServingRankFlags {
  system?: string;
  template?: string;
}

interface Turn {
  user: string;
  assistant: string;
  reason: string;
  usage: Usage;
}

const HELP = '/new forgets what was said, /exit or Ctrl-D leaves, Ctrl-C ends an answer';

/** `fathom chat DIR`. */
export function addChat(program: Command): void {
  const command = program
    .command('chat')
    .description('talk with a model; each line of standard input is what you say')
    .argument('<dir>', 'a checkpoint folder with its tokenizer')
    .option('--system <text>', 'instructions for the whole conversation')
    .option(
      '--template <file>',
      "a Jinja chat template (default: the model's own, else it goes on with your text)",
    )
    .option(
      '--max-tokens <n>',
      'tokens of an answer at most (default: until the context is full)',
      integer(1),
    )
    .option('--seed <n>', 'the same seed answers the same', integer(0));
  addSamplingOptions(command);
  addServingRankOptions(addInferenceOptions(command));
  runs<ChatFlags>(command, (session, flags, [folder]) =>
    onEngine(folder!, engineOptions(flags), flags, openHere, async (engine) => {
      const begin = await conversations(folder!, flags);
      return { json: { turns: await new Chat(session, engine, flags, begin).run() } };
    }),
  );
}

/** Gives a way to begin a new conversation. */
async function conversations(folder: string, flags: ChatFlags): Promise<() => Conversation> {
  const { ChatTemplate } = await import('../text/chat-template.js');
  const { Tokenizer } = await import('../text/tokenizer.js');
  const { Conversation } = await import('./conversation.js');
  const tokenizer = Tokenizer.fromFolder(folder);
  const template = flags.template
    ? ChatTemplate.fromFile(flags.template, tokenizer)
    : ChatTemplate.fromFolder(folder, tokenizer);
  return () => new Conversation(tokenizer, template, flags.system);
}

class Chat {
  private readonly terminal = process.stdin.isTTY === true;
  private readonly lines = createInterface({
    input: process.stdin,
    ...(this.terminal ? { output: process.stderr, prompt: '> ' } : {}),
  });
  private readonly turns: Turn[] = [];
  private conversation: Conversation;
  private answering: AbortController | undefined;
  private left = false;

  constructor(
    private readonly session: Session,
    private readonly engine: Engine,
    private readonly flags: ChatFlags,
    private readonly begin: () => Conversation,
  ) {
    this.conversation = begin();
  }

  async run(): Promise<Turn[]> {
    if (this.terminal) this.session.note(HELP);
    const interrupt = () => this.interrupt();
    // On a terminal, readline reads Ctrl-C as a key.
    this.lines.on('SIGINT', interrupt);
    process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
    try {
      this.lines.prompt();
      for await (const line of this.lines) {
        await this.take(line.trim());
        if (this.left) break;
        this.lines.prompt();
      }
    } finally {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
      this.lines.close();
    }
    return this.turns;
  }

  /** Ends the answer; where there is none, the conversation. */
  private interrupt(): void {
    if (this.answering) this.answering.abort();
    else {
      this.left = true;
      this.lines.close();
    }
  }

  private async take(line: string): Promise<void> {
    if (line === '/exit') this.left = true;
    else if (line === '/new') this.conversation = this.begin();
    else if (line !== '') await this.answer(line);
  }

  private async answer(user: string): Promise<void> {
    const { session, engine, flags } = this;
    const { maxTokens, stop = [] } = flags;
    this.answering = new AbortController();
    try {
      const prompt = this.conversation.ask(user);
      const limits = maxTokens === undefined ? { stop } : { stop, maxTokens };
      const request = { prompt, ...limits, ...samplingOptions(flags, engine.info) };
      const { text, tokens, reason, usage } = await write(session, engine, request, this.answering.signal);
      session.print('\n');
      if (this.terminal) session.note(describeUsage(usage));
      this.conversation.answered(text, tokens);
      this.turns.push({ user, assistant: text, reason, usage });
    } catch (error) {
      this.complain(error);
    } finally {
      this.answering = undefined;
    }
  }

  /** What the user can put right must not end a conversation on a terminal. */
  private complain(error: unknown): void {
    if (!this.terminal || !(error instanceof UserError)) throw error;
    this.session.note(`${error.message} (/new begins a new conversation)`);
  }
}
