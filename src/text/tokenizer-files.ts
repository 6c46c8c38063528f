/** The files of a tokenizer trained here, as Hugging Face `tokenizers` and `transformers` read them. */
import path from 'node:path';
import { writeFileAtomicallySync, writeFully } from '../files.js';
import { type BpeVocabulary, WORD_PATTERN } from './bpe.js';

/** Special tokens spelled as DeepSeek-V3's tokenizer.json spells them; their ids are 0, 1, 2, 3, 4. */
export const SPECIAL_TOKENS = {
  bos: '<｜begin▁of▁sentence｜>',
  eos: '<｜end▁of▁sentence｜>',
  pad: '<｜▁pad▁｜>',
  user: '<｜User｜>',
  assistant: '<｜Assistant｜>',
} as const;

/** `tokenizer.json` of a byte-level vocabulary whose first tokens are the special ones. Encoding adds bos in front. */
export function tokenizerJson(vocabulary: BpeVocabulary): object {
  const { bos } = SPECIAL_TOKENS;
  const id = (token: string) => vocabulary.tokens.indexOf(token);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: Object.values(SPECIAL_TOKENS).map((content) => addedToken(id(content), content)),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: WORD_PATTERN }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: bos, type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { SpecialToken: { id: bos, type_id: 1 } },
        { Sequence: { id: 'B', type_id: 1 } },
      ],
      special_tokens: { [bos]: { id: bos, ids: [id(bos)], tokens: [bos] } },
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary.tokens.map((token, index) => [token, index])),
      merges: vocabulary.merges,
    },
  };
}

function addedToken(id: number, content: string): object {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

/** `tokenizer_config.json`: what `transformers` needs beside it. No chat template: what is trained here has never seen a conversation. */
export function tokenizerConfig(): object {
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    add_bos_token: true,
    add_eos_token: false,
    bos_token: SPECIAL_TOKENS.bos,
    eos_token: SPECIAL_TOKENS.eos,
    pad_token: SPECIAL_TOKENS.pad,
    clean_up_tokenization_spaces: false,
  };
}

/** Writes `tokenizer.json` and `tokenizer_config.json` into `folder`, each whole or not at all. */
export function saveTokenizer(folder: string, vocabulary: BpeVocabulary): void {
  writeJson(path.join(folder, 'tokenizer_config.json'), tokenizerConfig());
  writeJson(path.join(folder, 'tokenizer.json'), tokenizerJson(vocabulary));
}

function writeJson(file: string, value: object): void {
  const bytes = Buffer.from(`${JSON.stringify(value, null, 1)}\n`, 'utf8');
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, bytes, 0));
}
