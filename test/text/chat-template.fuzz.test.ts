import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { type ChatMessage, ChatTemplate } from '../../src/text/chat-template.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { goldenPath } from './goldens.js';

/** In the manner of DeepSeek-V3's: namespace, conditions, string tests, a refusal. */
const SEED = [
  "{% set ns = namespace(is_first=true, system_prompt='') %}",
  "{%- for message in messages %}{%- if message['role'] == 'system' %}",
  "{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor %}",
  '{{ bos_token }}{{ ns.system_prompt }}',
  "{%- for message in messages %}{%- if message['role'] == 'user' %}{{ '<u>' + message['content'] }}",
  "{%- elif message['role'] == 'assistant' and message['content'] is not none %}",
  "{{ '<a>' + message['content'].split('</think>')[-1] + eos_token }}",
  "{%- elif message['role'] != 'system' %}{{ raise_exception('only three speak') }}{%- endif %}{%- endfor %}",
  "{% if add_generation_prompt %}{{ '<a>' }}{% if thinking %}{{ '<think>' }}{% endif %}{% endif %}",
].join('');

/** What templates are made of, and what breaks their readers. */
const PIECES = [
  ...[
    '{%',
    '%}',
    '{%-',
    '-%}',
    '{{',
    '}}',
    '{#',
    '#}',
    '(',
    ')',
    '[',
    ']',
    '{',
    '}',
    "'",
    '"',
    '\\',
    ',',
    '.',
    ':',
    '|',
  ],
  ...[
    '=',
    '==',
    '!=',
    '+',
    '-',
    '*',
    '/',
    '%',
    '~',
    '<',
    ' not ',
    ' in ',
    ' is ',
    ' and ',
    ' or ',
    ' if ',
    ' else ',
  ],
  ...[
    '{% if x %}',
    '{% endif %}',
    '{% for m in messages %}',
    '{% endfor %}',
    '{% for a, b in 1 %}',
    '{% break %}',
  ],
  ...[
    '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}',
    '{% set x %}',
    '{% endset %}',
    '{% set messages = 5 %}',
  ],
  ...[
    '{% filter upper %}',
    '{% generation %}',
    '{% include "x" %}',
    '{{ 1 / 0 }}',
    '{{ none.x.y }}',
    '{{ messages[9].role }}',
  ],
  ...[
    '{{ messages | tojson }}',
    '{{ messages | map(attribute="role") | join }}',
    "{{ 'a' | nothing }}",
    '{{ range(3)[::-1] }}',
  ],
  ...[
    "{{ messages['__proto__'] }}",
    '{{ constructor }}',
    "{{ ''.constructor.constructor('return process')() }}",
  ],
  ...[
    '1e999',
    '-0',
    '999999999999999999999',
    'é',
    '🌊',
    '\ud800',
    '\0',
    '\n',
    ' ',
    '',
    'none',
    'true',
    'undefined',
  ],
];

const MESSAGES: ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hello' },
  { role: 'assistant', content: '<think>Hm</think>Hi.' },
  { role: 'user', content: '' },
];

let tokenizer: Tokenizer;
beforeAll(() => {
  tokenizer = Tokenizer.fromFile(goldenPath('tokenizer.json'));
});

/** Ids of the vocabulary, or the reason why there are none as a line for users. */
function useOrExplain(
  source: string,
  messages: readonly ChatMessage[],
  variables: Record<string, unknown>,
): boolean {
  try {
    const ids = new ChatTemplate(source, tokenizer, true, 'template').encode(messages, variables);
    expect(ids.every((id) => tokenizer.idToToken(id) !== undefined)).toBe(true);
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    expect((error as Error).message).toMatch(/^template: the chat template (cannot be read|refuses)/);
    return false;
  }
}

describe('fuzzing chat templates', () => {
  it('gives ids or a UserError for mutated templates', () => {
    const change = fc.record({
      at: fc.nat(SEED.length),
      removed: fc.nat(4),
      put: fc.constantFrom(...PIECES),
    });
    let used = 0;
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 2 }), (changes) => {
        const source = changes.reduce(
          (text, { at, removed, put }) => text.slice(0, at) + put + text.slice(at + removed),
          SEED,
        );
        if (useOrExplain(source, MESSAGES, { x: 1 })) used++;
      }),
      { numRuns: 400 },
    );
    // Both ends were tested.
    expect(used).toBeGreaterThan(10);
    expect(used).toBeLessThan(390);
  });

  it('gives ids or a UserError for pieces in any order', () => {
    const source = fc.array(fc.constantFrom(...PIECES), { maxLength: 12 }).map((pieces) => pieces.join(''));
    fc.assert(
      fc.property(source, (text) => void useOrExplain(text, MESSAGES, {})),
      { numRuns: 400 },
    );
  });

  it('takes any conversation and any variables', () => {
    const anything = (key: fc.Arbitrary<string>) =>
      fc.dictionary(key, fc.jsonValue({ maxDepth: 1 }), { maxKeys: 3 });
    const message = fc
      .tuple(
        anything(fc.string()),
        fc.constantFrom('system', 'user', 'assistant', 'tool', ''),
        fc.string({ unit: 'binary' }),
      )
      .map(([more, role, content]) => ({ ...more, role, content }));
    const name = fc.oneof(
      fc.string(),
      fc.constantFrom('messages', 'thinking', 'range', 'namespace', 'bos_token', '__proto__'),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 4 }), anything(name), (messages, variables) => {
        const allowed = messages.every(({ role }) => ['system', 'user', 'assistant'].includes(role));
        const taken = useOrExplain(SEED, messages, variables);
        // Others stand for what the template itself uses.
        if (Object.keys(variables).every((key) => key.startsWith('x'))) expect(taken).toBe(allowed);
      }),
      { numRuns: 150 },
    );
  });
});
