import { describe, expect, it } from 'vitest';
import { trainBpe } from '../../src/text/bpe.js';
import { ChatTemplate } from '../../src/text/chat-template.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { SPECIAL_TOKENS, tokenizerConfig, tokenizerJson } from '../../src/text/tokenizer-files.js';
import { makeFolder } from './folder.js';

const { bos, eos, user, assistant } = SPECIAL_TOKENS;
const TALK = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hello' },
  { role: 'assistant', content: 'Hi.' },
  { role: 'user', content: 'Who are you?' },
];

/** In the layout of DeepSeek-V3: namespace, nested conditions, string tests, and a refusal. */
const DEEPSEEK = [
  '{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}',
  "{% set ns = namespace(is_first=true, system_prompt='') %}",
  "{%- for message in messages %}{%- if message['role'] == 'system' %}",
  "{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor %}",
  '{{ bos_token }}{{ ns.system_prompt }}',
  "{%- for message in messages %}{%- if message['role'] == 'user' %}",
  `{{ '${user}' + message['content'] }}`,
  "{%- elif message['role'] == 'assistant' %}",
  `{{ '${assistant}' + message['content'] + eos_token }}`,
  "{%- elif message['role'] != 'system' %}{{ raise_exception('only system, user and assistant speak') }}",
  '{%- endif %}{%- endfor %}',
  `{% if add_generation_prompt %}{{ '${assistant}' }}{% if thinking %}{{ '<think>' }}{% endif %}{% endif %}`,
].join('');

async function folderWith(config: object, files: Record<string, string> = {}): Promise<[string, Tokenizer]> {
  const vocabulary = await trainBpe(['a b'], {
    vocabSize: 261,
    specialTokens: Object.values(SPECIAL_TOKENS),
  });
  const folder = makeFolder({
    'tokenizer.json': JSON.stringify(tokenizerJson(vocabulary)),
    'tokenizer_config.json': JSON.stringify({ ...tokenizerConfig(), ...config }),
    ...files,
  });
  return [folder, Tokenizer.fromFolder(folder)];
}

describe('a chat template', () => {
  const spelled = `${bos}Be brief.${user}Hello${assistant}Hi.${eos}${user}Who are you?${assistant}`;

  it.each<[string, object, Record<string, string>]>([
    ['tokenizer_config.json', { chat_template: DEEPSEEK }, {}],
    ['a list of named ones', { chat_template: [{ name: 'default', template: DEEPSEEK }] }, {}],
    ['chat_template.jinja', { chat_template: 'older' }, { 'chat_template.jinja': DEEPSEEK }],
    ['chat_template.json', {}, { 'chat_template.json': JSON.stringify({ chat_template: DEEPSEEK }) }],
  ])('is found in %s and spells the conversation', async (_place, config, files) => {
    const [folder, tokenizer] = await folderWith(config, files);
    const template = ChatTemplate.fromFolder(folder, tokenizer);
    expect(template.own).toBe(true);
    expect(template.render(TALK)).toBe(spelled);
    expect(template.render(TALK, { thinking: true })).toBe(`${spelled}<think>`);
    const ids = template.encode(TALK);
    expect(ids.filter((id) => id === tokenizer.bosId)).toHaveLength(1);
    expect(tokenizer.decode(ids)).toBe(spelled);
  });

  it('refuses a conversation in its own words, and is refused where it is broken', async () => {
    const [folder, tokenizer] = await folderWith({ chat_template: DEEPSEEK });
    const strange = [{ role: 'tool', content: '' }];
    expect(() => ChatTemplate.fromFolder(folder, tokenizer).render(strange)).toThrow(
      /tokenizer_config.json: the chat template refuses the conversation: only system, user and assistant speak/,
    );
    const [broken, other] = await folderWith({ chat_template: '{% for %}' });
    expect(() => ChatTemplate.fromFolder(broken, other)).toThrow(
      /tokenizer_config.json: the chat template cannot be read/,
    );
  });

  it('of a model without one lets it go on with the text', async () => {
    const [folder, tokenizer] = await folderWith({});
    const template = ChatTemplate.fromFolder(folder, tokenizer);
    expect(template.own).toBe(false);
    expect(template.render([TALK[1]!])).toBe('Hello');
    // What it has said goes on directly: the turn before is found in the cache.
    expect(template.render(TALK)).toBe('Be brief.\n\nHelloHi.\n\nWho are you?');
    expect(template.encode([TALK[1]!])[0]).toBe(tokenizer.bosId);
  });
});
