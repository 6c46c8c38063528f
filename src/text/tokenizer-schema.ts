/**
 * The shape of `tokenizer.json` as far as it decides ids and text, checked before anything is built from it, so that a damaged
 * or unsupported file is one line naming the field and never an exception from the middle of an encode.
 */
import { z } from 'zod';
import { UserError } from '../errors.js';

/** Bound on token ids (the largest published vocabularies have about 2.6e5): keeps tables by id small. Assumed. */
const MAX_ID = 2 ** 24 - 1;

const tokenId = z.number().int().min(0).max(MAX_ID);
const token = z.string().min(1);
const flag = z.boolean().nullish();

const pattern = z.union(
  [z.looseObject({ Regex: z.string() }), z.looseObject({ String: z.string().min(1) })],
  {
    error: 'expected {"Regex": "..."} or {"String": "..."}',
  },
);

const plain = <T extends string>(...types: T[]) => z.looseObject({ type: z.enum(types) });

const normalizerLeaf = z.discriminatedUnion('type', [
  plain('NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'StripAccents'),
  z.looseObject({
    type: z.literal('BertNormalizer'),
    clean_text: flag,
    handle_chinese_chars: flag,
    strip_accents: flag,
    lowercase: flag,
  }),
  z.looseObject({ type: z.literal('Strip'), strip_left: z.boolean(), strip_right: z.boolean() }),
  z.looseObject({ type: z.literal('Prepend'), prepend: z.string() }),
  z.looseObject({ type: z.literal('Replace'), pattern, content: z.string() }),
  z.looseObject({ type: z.literal('Precompiled'), precompiled_charsmap: z.string().nullish() }),
]);
const normalizer: z.ZodType<NormalizerConfig> = z.discriminatedUnion('type', [
  ...normalizerLeaf.options,
  z.looseObject({ type: z.literal('Sequence'), normalizers: z.array(z.lazy(() => normalizer)) }),
]);

/** What a Split does with the text that its pattern matches. */
export const SPLIT_BEHAVIORS = [
  'Removed',
  'Isolated',
  'MergedWithPrevious',
  'MergedWithNext',
  'Contiguous',
] as const;
const behavior = z.enum(SPLIT_BEHAVIORS);

const preTokenizerLeaf = z.discriminatedUnion('type', [
  plain('Whitespace', 'WhitespaceSplit', 'BertPreTokenizer'),
  z.looseObject({
    type: z.literal('ByteLevel'),
    add_prefix_space: z.boolean().default(true),
    use_regex: flag,
  }),
  z.looseObject({ type: z.literal('Split'), pattern, behavior, invert: flag }),
  z.looseObject({ type: z.literal('Punctuation'), behavior: behavior.default('Isolated') }),
  z.looseObject({ type: z.literal('Digits'), individual_digits: z.boolean() }),
  z.looseObject({ type: z.literal('CharDelimiterSplit'), delimiter: z.string().min(1) }),
  z.looseObject({ type: z.literal('FixedLength'), length: z.number().int().min(1) }),
  z.looseObject({
    type: z.literal('Metaspace'),
    replacement: z.string().min(1),
    prepend_scheme: z.enum(['always', 'first', 'never']).nullish(),
    add_prefix_space: flag,
    split: flag,
  }),
]);
const preTokenizer: z.ZodType<PreTokenizerConfig> = z.discriminatedUnion('type', [
  ...preTokenizerLeaf.options,
  z.looseObject({ type: z.literal('Sequence'), pretokenizers: z.array(z.lazy(() => preTokenizer)) }),
]);

const templatePiece = z.union(
  [
    z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }) }),
    z.looseObject({ Sequence: z.looseObject({ id: z.literal('A') }) }),
  ],
  { error: 'expected {"SpecialToken": {"id": ...}} or {"Sequence": {"id": "A"}}' },
);
const boundary = z.tuple([z.string(), tokenId]);

const postProcessorLeaf = z.discriminatedUnion('type', [
  plain('ByteLevel'),
  z.looseObject({ type: z.literal('TemplateProcessing'), single: z.array(templatePiece) }),
  z.looseObject({ type: z.enum(['BertProcessing', 'RobertaProcessing']), sep: boundary, cls: boundary }),
]);
const postProcessor: z.ZodType<PostProcessorConfig> = z.discriminatedUnion('type', [
  ...postProcessorLeaf.options,
  z.looseObject({ type: z.literal('Sequence'), processors: z.array(z.lazy(() => postProcessor)) }),
]);

const decoderLeaf = z.discriminatedUnion('type', [
  plain('ByteLevel', 'ByteFallback', 'Fuse'),
  z.looseObject({ type: z.literal('WordPiece'), prefix: z.string(), cleanup: flag }),
  z.looseObject({ type: z.literal('Metaspace'), replacement: z.string().min(1) }),
  z.looseObject({ type: z.literal('BPEDecoder'), suffix: z.string().nullish() }),
  z.looseObject({
    type: z.literal('CTC'),
    pad_token: z.string().nullish(),
    word_delimiter_token: z.string().nullish(),
    cleanup: flag,
  }),
  z.looseObject({ type: z.literal('Replace'), pattern, content: z.string() }),
  z.looseObject({
    type: z.literal('Strip'),
    content: z.string().min(1),
    start: z.number().int().min(0),
    stop: z.number().int().min(0),
  }),
]);
const decoder: z.ZodType<DecoderConfig> = z.discriminatedUnion('type', [
  ...decoderLeaf.options,
  z.looseObject({ type: z.literal('Sequence'), decoders: z.array(z.lazy(() => decoder)) }),
]);

const merge = z.custom<string | [string, string]>((value) => {
  const parts = typeof value === 'string' ? value.split(' ') : value;
  return (
    Array.isArray(parts) &&
    parts.length === 2 &&
    parts.every((part) => typeof part === 'string' && part !== '')
  );
}, 'expected a pair of tokens, ["a", "b"] or "a b"');
const vocabulary = z.record(z.string(), tokenId);

const model = z.discriminatedUnion('type', [
  z.looseObject({
    type: z.literal('BPE'),
    vocab: vocabulary,
    merges: z.array(merge),
    unk_token: z.string().nullish(),
    // The run-time library has no such prefix for BPE; no published tokenizer of the model types read here uses it.
    continuing_subword_prefix: z.literal('').nullish(),
    end_of_word_suffix: z.string().nullish(),
    fuse_unk: flag,
    byte_fallback: flag,
    ignore_merges: flag,
  }),
  z.looseObject({
    type: z.literal('WordPiece'),
    vocab: vocabulary,
    unk_token: z.string(),
    continuing_subword_prefix: z.string(),
    max_input_chars_per_word: z.number().int().min(0),
  }),
  z.looseObject({
    type: z.literal('Unigram'),
    vocab: z.array(z.tuple([token, z.number()])).min(1),
    unk_id: tokenId,
    byte_fallback: z.literal(false).nullish(),
  }),
]);

const addedToken = z.looseObject({
  id: tokenId,
  content: token,
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  normalized: z.boolean().optional(),
  special: z.boolean().default(false),
});

const tokenizerSchema = z.looseObject({
  added_tokens: z.array(addedToken).nullish(),
  normalizer: normalizer.nullish(),
  pre_tokenizer: preTokenizer.nullish(),
  post_processor: postProcessor.nullish(),
  decoder: decoder.nullish(),
  model,
});

const named = z.union([z.string(), z.looseObject({ content: z.string() })]).nullish();

const configSchema = z.looseObject({
  bos_token: named,
  eos_token: named,
  pad_token: named,
  add_bos_token: flag,
  add_eos_token: flag,
  chat_template: z.unknown().optional(),
});

export type NormalizerConfig =
  | z.infer<typeof normalizerLeaf>
  | { type: 'Sequence'; normalizers: NormalizerConfig[] };
export type PreTokenizerConfig =
  | z.infer<typeof preTokenizerLeaf>
  | { type: 'Sequence'; pretokenizers: PreTokenizerConfig[] };
export type PostProcessorConfig =
  | z.infer<typeof postProcessorLeaf>
  | { type: 'Sequence'; processors: PostProcessorConfig[] };
export type DecoderConfig = z.infer<typeof decoderLeaf> | { type: 'Sequence'; decoders: DecoderConfig[] };
export type AddedTokenConfig = z.infer<typeof addedToken>;
export type TokenizerJson = z.infer<typeof tokenizerSchema>;
export type TokenizerConfig = z.infer<typeof configSchema>;

/** Checks parsed JSON as a `tokenizer.json`; a UserError names `file` and the first field that does not fit. */
export function checkTokenizerJson(json: unknown, file: string): TokenizerJson {
  const checked = check(tokenizerSchema, withModelType(json), file);
  checkVocabulary(checked.model, file);
  return checked;
}

/** Checks parsed JSON as a `tokenizer_config.json`, in the same way. */
export function checkTokenizerConfig(json: unknown, file: string): TokenizerConfig {
  return check(configSchema, json, file);
}

function check<T extends z.ZodType>(schema: T, json: unknown, file: string): z.infer<T> {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue.path
    .map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`))
    .join('');
  throw new UserError(`${file}: ${field.replace(/^\./, '') || 'the file'}: ${issue.message}`);
}

/** Files from before `model.type` existed (GPT-2's own) are told by their fields. */
function withModelType(json: unknown): unknown {
  const model = (json as { model?: unknown } | null)?.model;
  if (typeof model !== 'object' || model === null || Array.isArray(model) || 'type' in model) return json;
  const type =
    'merges' in model ? 'BPE' : 'vocab' in model && Array.isArray(model.vocab) ? 'Unigram' : 'WordPiece';
  return { ...(json as object), model: { type, ...model } };
}

/** What a schema cannot say: ids are not shared, and merges join known tokens to known tokens. */
function checkVocabulary(model: TokenizerJson['model'], file: string): void {
  if (model.type === 'Unigram') {
    if (model.unk_id >= model.vocab.length) {
      throw new UserError(
        `${file}: model.unk_id: ${model.unk_id} is outside the vocabulary of ${model.vocab.length}`,
      );
    }
    return;
  }
  const owners = new Map<number, string>();
  for (const [spelling, id] of Object.entries(model.vocab)) {
    if (owners.has(id)) {
      const both = [owners.get(id), spelling].map((name) => JSON.stringify(name)).join(' and ');
      throw new UserError(`${file}: model.vocab: ${both} share the id ${id}`);
    }
    owners.set(id, spelling);
  }
  if (model.type === 'BPE') checkMerges(model.vocab, model.merges, file);
}

function checkMerges(
  vocab: Record<string, number>,
  merges: (string | [string, string])[],
  file: string,
): void {
  for (const [index, entry] of merges.entries()) {
    const [left, right] = typeof entry === 'string' ? entry.split(' ') : entry;
    const missing = [left, right, left + right].find((part) => !Object.hasOwn(vocab, part));
    if (missing !== undefined) {
      const name = JSON.stringify(missing);
      throw new UserError(`${file}: model.merges[${index}]: the token ${name} is not in model.vocab`);
    }
  }
}
