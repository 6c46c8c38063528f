import { Template } from '@huggingface/jinja';
import { UserError } from '../errors.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { RenderChat } from './prompts.js';

/** The chat template in a model's tokenizer_config.json, if it has one. @throws UserError where it is not valid */
export function chatTemplate(tokenizer: Tokenizer): RenderChat | undefined {
  const { chatTemplate: source, bosId, eosId } = tokenizer;
  if (source === undefined) return undefined;
  const spell = (id: number | undefined) => (id === undefined ? '' : tokenizer.idToToken(id));
  const names = { bos_token: spell(bosId), eos_token: spell(eosId) };
  const template = explain(() => new Template(source));
  return (messages, variables) =>
    explain(() =>
      template.render({ ...names, ...variables, messages: [...messages], add_generation_prompt: true }),
    );
}

function explain<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new UserError(`chat template: ${(error as Error).message}`);
  }
}
