import type { Tokenizer } from '../text/tokenizer.js';

/** A message of a conversation as chat templates take it. */
export interface TemplateMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
  name?: string;
  reasoning_content?: string;
}

/** Variables for a chat template beside the messages. */
export type TemplateVariables = Readonly<Record<string, unknown>>;

/** The text of a conversation up to where the assistant speaks, special tokens spelled out. @throws UserError */
export type RenderChat = (messages: readonly TemplateMessage[], variables: TemplateVariables) => string;

/** Turns what requests say into token ids. */
export interface Prompts {
  readonly hasChatTemplate: boolean;
  /** A text, with what the tokenizer puts around it. */
  text(text: string): Promise<number[]>;
  /** A conversation. @throws UserError where the template refuses it */
  conversation(messages: readonly TemplateMessage[], variables: TemplateVariables): Promise<number[]>;
  /** The text of ids, special tokens left out. */
  decode(ids: readonly number[]): Promise<string>;
  close(): Promise<void>;
}

/** Between the messages of a conversation with a model that has no chat template. */
const PARAGRAPH = '\n\n';

/** Works in the thread that calls. */
export class LocalPrompts implements Prompts {
  constructor(
    private readonly tokenizer: Tokenizer,
    /** Absent where the model has none: it then continues the plain text of the messages. */
    private readonly render: RenderChat | undefined,
  ) {}

  get hasChatTemplate(): boolean {
    return this.render !== undefined;
  }

  async text(text: string): Promise<number[]> {
    return [...this.tokenizer.encode(text)];
  }

  async conversation(messages: readonly TemplateMessage[], variables: TemplateVariables): Promise<number[]> {
    if (!this.render) return this.text(messages.map(({ content }) => content).join(PARAGRAPH));
    return [...this.tokenizer.encode(this.render(messages, variables), { addSpecialTokens: false })];
  }

  async decode(ids: readonly number[]): Promise<string> {
    return this.tokenizer.decode(ids, { skipSpecialTokens: true });
  }

  async close(): Promise<void> {}
}
