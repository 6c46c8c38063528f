import type { ChatMessage, ChatTemplate } from '../text/chat-template.js';
import type { Tokenizer } from '../text/tokenizer.js';

/** Variables for a chat template beside the messages. */
export type TemplateVariables = Readonly<Record<string, unknown>>;

/** Turns what requests say into token ids. */
export interface Prompts {
  /** Whether the model has a chat template of its own; else it continues the plain text of the messages. */
  readonly hasChatTemplate: boolean;
  /** A text, with what the tokenizer puts around it. */
  text(text: string): Promise<number[]>;
  /** A conversation. @throws UserError where the template refuses it */
  conversation(messages: readonly ChatMessage[], variables: TemplateVariables): Promise<number[]>;
  /** The text of ids, special tokens left out. */
  decode(ids: readonly number[]): Promise<string>;
  close(): Promise<void>;
}

/** Works in the thread that calls. */
export class LocalPrompts implements Prompts {
  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly template: ChatTemplate,
  ) {}

  get hasChatTemplate(): boolean {
    return this.template.own;
  }

  async text(text: string): Promise<number[]> {
    return [...this.tokenizer.encode(text)];
  }

  async conversation(messages: readonly ChatMessage[], variables: TemplateVariables): Promise<number[]> {
    return this.template.encode(messages, variables);
  }

  async decode(ids: readonly number[]): Promise<string> {
    return this.tokenizer.decode(ids, { skipSpecialTokens: true });
  }

  async close(): Promise<void> {}
}
