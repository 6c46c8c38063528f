import fs from 'node:fs';
import path from 'node:path';
import { UserError } from '../../errors.js';
import { readJsonFile, withFileErrors } from '../../files.js';
import type { ModelConfig } from '../../spec/model.js';
import { WORD_PATTERN } from '../../text/bpe.js';
import {
  checkTokenizerConfig,
  checkTokenizerJson,
  type PreTokenizerConfig,
  type TokenizerConfig,
  type TokenizerJson,
} from '../../text/tokenizer-schema.js';
import type { Value } from './format.js';
import { bool, text, u32 } from './metadata.js';

/** A byte-level BPE tokenizer as llama.cpp's model `gpt2` holds it. */

/** Numbers of `llama_token_type`. */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

/**
 * llama.cpp knows pre-tokenizers by name only. Name by the regular expressions of the Split steps; `note` says where its own
 * cuts otherwise.
 */
const PRE_TOKENIZERS: { name: string; patterns: readonly string[]; note?: string }[] = [
  {
    name: 'deepseek-v3', // DeepSeek-V3, -R1
    patterns: [
      '\\p{N}{1,3}',
      '[一-龥぀-ゟ゠-ヿ]+',
      '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
    ],
  },
  {
    name: 'dbrx', // Llama 3's pattern, without its shortcut past the merges
    patterns: [WORD_PATTERN],
    note: 'llama.cpp has no pre-tokenizer that keeps combining marks (\\p{M}) with their letters as this one does; text with such marks is cut in other places there',
  },
];

/** DeepSeek-V2's first pattern is too long a list of letters to repeat; its last ones tell it. */
const DEEPSEEK_LLM_ENDS = ['[一-龥ࠀ-一가-퟿]+'];

export interface TokenizerMetadata {
  values: Map<string, Value>;
  notes: string[];
}

/**
 * Keys of the tokenizer in a model's folder.
 * @param preTokenizer llama.cpp's name of the pre-tokenizer; found by its patterns where absent
 * @throws UserError when llama.cpp has no such tokenizer
 */
export function tokenizerMetadata(
  folder: string,
  config: ModelConfig,
  preTokenizer?: string,
): TokenizerMetadata {
  const file = path.join(folder, 'tokenizer.json');
  const json = checkTokenizerJson(readJsonFile(file), file);
  const settings = readSettings(folder);
  if (json.model.type !== 'BPE' || json.model.byte_fallback || json.normalizer) {
    throw new UserError(`${file}: only byte-level BPE without a normalizer can be written as GGUF`);
  }
  const { name, note } = preTokenizer
    ? { name: preTokenizer, note: undefined }
    : findPreTokenizer(json, file);
  const { tokens, types } = vocabulary(json, config.vocab_size, file);
  const template = chatTemplate(folder, settings);
  const values: [string, Value][] = [
    ['model', text('gpt2')],
    ['pre', text(name)],
    ['tokens', { type: 'array', of: 'string', value: tokens }],
    ['token_type', { type: 'array', of: 'i32', value: types }],
    ['merges', { type: 'array', of: 'string', value: json.model.merges.map(mergeText) }],
    ...specialIds(tokens, settings, config),
    ['add_bos_token', bool(addsBos(json, settings))],
    ['add_eos_token', bool(settings.add_eos_token ?? false)],
  ];
  const all = new Map(values.map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  if (template !== undefined) all.set('tokenizer.chat_template', text(template));
  return { values: all, notes: note ? [note] : [] };
}

function readSettings(folder: string): TokenizerConfig {
  const file = path.join(folder, 'tokenizer_config.json');
  return fs.existsSync(file) ? checkTokenizerConfig(readJsonFile(file), file) : {};
}

/** A file of its own goes before the field, as in transformers. */
function chatTemplate(folder: string, settings: TokenizerConfig): string | undefined {
  const file = path.join(folder, 'chat_template.jinja');
  if (fs.existsSync(file)) return withFileErrors('read', file, () => fs.readFileSync(file, 'utf8'));
  return typeof settings.chat_template === 'string' ? settings.chat_template : undefined;
}

/** A space inside a token is spelled as the byte alphabet spells it. */
const mergeText = (merge: string | [string, string]): string =>
  typeof merge === 'string' ? merge : merge.map((part) => part.replaceAll(' ', 'Ġ')).join(' ');

function findPreTokenizer(json: TokenizerJson, file: string): { name: string; note?: string } {
  const steps = stepsOf(json.pre_tokenizer);
  const byteLevel = steps.find((step) => step.type === 'ByteLevel');
  const patterns = steps.flatMap((step) =>
    step.type === 'Split' && 'Regex' in step.pattern ? [step.pattern.Regex] : [],
  );
  const key = (list: readonly unknown[]) => list.map((pattern) => escapeLineEnds(String(pattern))).join('\n');
  if (byteLevel && patterns.length === 0 && (byteLevel.use_regex ?? true)) return { name: 'gpt-2' };
  const found = PRE_TOKENIZERS.find((known) => key(known.patterns) === key(patterns));
  if (byteLevel && found) return found;
  if (byteLevel && DEEPSEEK_LLM_ENDS.some((end) => patterns.at(-1) === end)) return { name: 'deepseek-llm' };
  throw new UserError(
    `${file}: pre_tokenizer is none that llama.cpp is known to have; name its counterpart there with --pre-tokenizer ` +
      '(the names are in llama.cpp/src/llama-vocab.cpp)',
  );
}

const escapeLineEnds = (pattern: string): string => pattern.replaceAll('\r', '\\r').replaceAll('\n', '\\n');

function stepsOf(
  config: PreTokenizerConfig | null | undefined,
): Exclude<PreTokenizerConfig, { type: 'Sequence' }>[] {
  if (!config) return [];
  return config.type === 'Sequence' ? config.pretokenizers.flatMap(stepsOf) : [config];
}

/** Spelling and kind of every id; ids of the model that the tokenizer lacks are filled up. */
function vocabulary(json: TokenizerJson, size: number, file: string): { tokens: string[]; types: number[] } {
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(size).fill(UNUSED);
  const place = (token: string, id: number, type: number) => {
    if (id >= size) {
      throw new UserError(
        `${file}: token ${JSON.stringify(token)} has id ${id}, but vocab_size in config.json is ${size}`,
      );
    }
    tokens[id] = token;
    types[id] = type;
  };
  if (json.model.type !== 'BPE') throw new Error('checked by the caller');
  for (const [token, id] of Object.entries(json.model.vocab)) place(token, id, NORMAL);
  for (const { content, id, special } of json.added_tokens ?? [])
    place(content, id, special ? CONTROL : USER_DEFINED);
  return { tokens, types };
}

/** By name in tokenizer_config.json, else as config.json numbers them. */
function specialIds(tokens: string[], settings: TokenizerConfig, config: ModelConfig): [string, Value][] {
  const id = (named: TokenizerConfig['bos_token']): number | undefined => {
    const found = named ? tokens.indexOf(typeof named === 'string' ? named : String(named.content)) : -1;
    return found < 0 ? undefined : found;
  };
  const ids = {
    bos: id(settings.bos_token) ?? config.bos_token_id,
    eos: id(settings.eos_token) ?? config.eos_token_id,
    padding: id(settings.pad_token),
  };
  return Object.entries(ids).flatMap(([name, value]) =>
    typeof value === 'number' ? [[`${name}_token_id`, u32(value)] as [string, Value]] : [],
  );
}

/** Whether a text is encoded with bos in front: as the template says, else the setting. */
function addsBos(json: TokenizerJson, settings: TokenizerConfig): boolean {
  const processors =
    json.post_processor?.type === 'Sequence' ? json.post_processor.processors : [json.post_processor];
  const template = processors.find((processor) => processor?.type === 'TemplateProcessing');
  if (template && 'single' in template) return 'SpecialToken' in template.single[0]!;
  return settings.add_bos_token ?? false;
}
