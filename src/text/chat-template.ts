import fs from 'node:fs';
import path from 'node:path';
import { Template } from '@huggingface/jinja';
import { UserError } from '../errors.js';
import { readJsonFile, withFileErrors } from '../files.js';
import type { Tokenizer } from './tokenizer.js';

/** A message of a conversation; templates may read other fields than these. */
export interface ChatMessage {
  role: string;
  content: string;
  [field: string]: unknown;
}

/**
 * For models without a template, which have not been trained to converse: everything said so far is one text, and the answer goes on where it ends.
 * Contents follow each other, a blank line before each that is not the model's own.
 */
export const COMPLETION_TEMPLATE =
  "{% for message in messages %}{% if not loop.first and message['role'] != 'assistant' %}{{ '\n\n' }}{% endif %}" +
  "{{ message['content'] }}{% endfor %}";

/** How a conversation is spelled as the text that a model continues: a Jinja template, as in Hugging Face folders. */
export class ChatTemplate {
  private readonly template: Template;
  private readonly names: { bos_token: string; eos_token: string };

  /**
   * @param own whether it is the model's own, which spells special tokens out
   * @param file where it comes from, for messages
   * @throws UserError where it is no template
   */
  constructor(
    source: string,
    private readonly tokenizer: Tokenizer,
    readonly own: boolean,
    private readonly file: string,
  ) {
    const name = (id: number | undefined) => (id === undefined ? '' : (tokenizer.idToToken(id) ?? ''));
    this.names = { bos_token: name(tokenizer.bosId), eos_token: name(tokenizer.eosId) };
    try {
      this.template = new Template(source);
    } catch (error) {
      throw new UserError(`${file}: the chat template cannot be read: ${(error as Error).message}`);
    }
  }

  /**
   * The template of a model folder: `chat_template.jinja`, `chat_template.json`, `chat_template` in
   * `tokenizer_config.json`; `COMPLETION_TEMPLATE` where there is none.
   * @throws UserError naming the file that cannot be read
   */
  static fromFolder(folder: string, tokenizer: Tokenizer): ChatTemplate {
    const jinja = path.join(folder, 'chat_template.jinja');
    if (fs.existsSync(jinja)) return ChatTemplate.fromFile(jinja, tokenizer);
    for (const name of ['chat_template.json', 'tokenizer_config.json']) {
      const file = path.join(folder, name);
      const source = fs.existsSync(file) ? templateIn(readJsonFile(file)) : undefined;
      if (source !== undefined) return new ChatTemplate(source, tokenizer, true, file);
    }
    return new ChatTemplate(COMPLETION_TEMPLATE, tokenizer, false, 'the built-in template');
  }

  /** A template in a file of its own. @throws UserError */
  static fromFile(file: string, tokenizer: Tokenizer): ChatTemplate {
    const source = withFileErrors('read', file, () => fs.readFileSync(file, 'utf8'));
    return new ChatTemplate(source, tokenizer, true, file);
  }

  /**
   * The text of a conversation up to where the model speaks.
   * @param variables for the template, such as `thinking`
   * @throws UserError where the template refuses the conversation
   */
  render(messages: readonly ChatMessage[], variables: Readonly<Record<string, unknown>> = {}): string {
    try {
      return this.template.render({
        ...variables,
        ...this.names,
        messages: messages.map((message) => ({ ...message })),
        add_generation_prompt: true,
      });
    } catch (error) {
      throw new UserError(
        `${this.file}: the chat template refuses the conversation: ${(error as Error).message}`,
      );
    }
  }

  /** The same as token ids. */
  encode(messages: readonly ChatMessage[], variables: Readonly<Record<string, unknown>> = {}): number[] {
    return [...this.tokenizer.encode(this.render(messages, variables), { addSpecialTokens: !this.own })];
  }
}

/** `chat_template` of a JSON file: a template, or several by name, of which `default` is for conversations. */
function templateIn(json: unknown): string | undefined {
  const given = (json as { chat_template?: unknown } | null)?.chat_template;
  if (typeof given === 'string') return given;
  if (!Array.isArray(given)) return undefined;
  const named = given as { name?: unknown; template?: unknown }[];
  const found = named.find(({ name }) => name === 'default')?.template;
  return typeof found === 'string' ? found : undefined;
}
