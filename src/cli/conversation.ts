import type { ChatMessage, ChatTemplate } from '../text/chat-template.js';
import type { Tokenizer } from '../text/tokenizer.js';

/**
 * A conversation and its token ids. What the model wrote stays as the ids that it wrote: spelled and read again, they
 * might be others, and the cache would not know them.
 */
export class Conversation {
  private readonly messages: ChatMessage[] = [];
  /** Text and ids that the model has seen and written so far. */
  private text = '';
  private ids: number[] = [];

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly template: ChatTemplate,
    system: string | undefined,
  ) {
    if (system !== undefined) this.messages.push({ role: 'system', content: system });
  }

  /** Adds what the user says. @returns the prompt for the answer @throws UserError where the template refuses it */
  ask(content: string): number[] {
    const messages = [...this.messages, { role: 'user', content }];
    const text = this.template.render(messages);
    const more = text.startsWith(this.text) && this.text !== '' ? text.slice(this.text.length) : undefined;
    this.ids =
      more === undefined
        ? this.template.encode(messages)
        : [...this.ids, ...this.tokenizer.encode(more, { addSpecialTokens: false })];
    this.text = text;
    this.messages.push({ role: 'user', content });
    return this.ids;
  }

  /** Adds the answer. */
  answered(content: string, ids: readonly number[]): void {
    this.messages.push({ role: 'assistant', content });
    this.text += content;
    this.ids = [...this.ids, ...ids];
  }
}
