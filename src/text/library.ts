/**
 * The parts of `@huggingface/tokenizers` used here, with their types. The package's own declarations use import
 * paths without extensions, which TypeScript does not resolve under `nodenext`, so they are declared again.
 */
import * as untyped from '@huggingface/tokenizers';

/** A tokenizer of the library; its members are the parts of the pipeline, each callable on its own. */
export interface LibraryTokenizer {
  normalizer: ((text: string) => string) | null;
  /** Encodes pieces to token spellings. */
  model: ((pieces: string[]) => string[]) & {
    vocab: string[];
    tokens_to_ids: Map<string, number>;
    unk_token_id: number | undefined;
  };
  post_processor: ((tokens: string[], pair: null, addSpecialTokens: boolean) => { tokens: string[] }) | null;
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
}

interface Library {
  Tokenizer: new (json: object, config: object) => LibraryTokenizer;
  /** Only for its translation of Oniguruma patterns to JavaScript. */
  SplitPreTokenizer: new (
    config: object,
  ) => { pattern: RegExp | null };
}

export const { Tokenizer: LibraryTokenizer, SplitPreTokenizer } = untyped as unknown as Library;
