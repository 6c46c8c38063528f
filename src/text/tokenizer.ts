/**
 * Reading a Hugging Face `tokenizer.json` and encoding and decoding with it.
 *
 * Normalizers, models (BPE, WordPiece, Unigram), templates and the decoders other than byte-level are those of
 * `@huggingface/tokenizers`; cutting into pieces, added tokens and the byte-level decoder are ours (see
 * pre-tokenizers.ts for the reasons). Ids are those of Hugging Face's Rust `tokenizers`, which goldens pin.
 * Pieces repeat, so the ids of each are kept: ten megabytes of English encode in about a second.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { UserError } from '../errors.js';
import { withFileErrors } from '../files.js';
import { AddedTokenFinder } from './added-tokens.js';
import { tokenBytes } from './byte-level.js';
import { LibraryTokenizer } from './library.js';
import { createPreTokenizer, type PreTokenizer } from './pre-tokenizers.js';
import { ByteStream, type TextStream, WindowStream } from './streams.js';
import {
  checkTokenizerConfig,
  checkTokenizerJson,
  type NormalizerConfig,
  type TokenizerConfig,
  type TokenizerJson,
} from './tokenizer-schema.js';

export interface EncodeOptions {
  /** Adds what the tokenizer's template asks for, usually bos in front; true by default, as in Hugging Face. */
  addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leaves special tokens (bos, eos, ...) out of the text; false by default. */
  skipSpecialTokens?: boolean;
}

/** Pieces whose ids are kept; about 100 bytes each, so 30 MB at most. Assumed: English has fewer distinct pieces. */
const MAX_CACHED_PIECES = 300_000;
/** Longer pieces rarely repeat. */
const MAX_CACHED_LENGTH = 64;

/** How SentencePiece spells a byte that no token covers, and a blank. */
const BYTE_FALLBACK = /^<0x([0-9A-F]{2})>$/;
const METASPACE = '\u2581';

export class Tokenizer {
  /** One more than the largest id: the number of embedding rows that a model needs at least. */
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  /** SHA-256 of the bytes of tokenizer.json, hexadecimal; names the tokenizer in token files and checkpoints. */
  readonly sha256: string;

  private readonly library: LibraryTokenizer;
  private readonly preTokenizer: PreTokenizer;
  private readonly rawTokens: AddedTokenFinder;
  private readonly normalizedTokens: AddedTokenFinder;
  private readonly specialIds: Set<number>;
  private readonly prefix: number[];
  private readonly suffix: number[];
  /** For byte-level vocabularies: the bytes of each id. */
  private readonly bytes: Map<number, Uint8Array> | null;
  private readonly cache = new Map<string, number[]>();

  /** The tokenizer in a Hugging Face checkpoint folder: `tokenizer.json` and, if there, `tokenizer_config.json`. */
  static fromFolder(folder: string): Tokenizer {
    return Tokenizer.fromFile(path.join(folder, 'tokenizer.json'));
  }

  /**
   * Reads one `tokenizer.json` and, if it is beside it, `tokenizer_config.json`. A UserError names the file and the field that
   * is missing, wrong or not supported.
   */
  static fromFile(file: string): Tokenizer {
    const source = withFileErrors('read', file, () => fs.readFileSync(file));
    const configFile = path.join(path.dirname(file), 'tokenizer_config.json');
    const config = fs.existsSync(configFile)
      ? withFileErrors('read', configFile, () => fs.readFileSync(configFile))
      : undefined;
    return new Tokenizer(source, config, file, configFile);
  }

  /**
   * @param source the bytes of tokenizer.json
   * @param config the bytes of tokenizer_config.json
   * @param file, configFile their names, for messages
   */
  constructor(
    source: Uint8Array,
    config?: Uint8Array,
    file = 'tokenizer.json',
    configFile = 'tokenizer_config.json',
  ) {
    const json = checkTokenizerJson(parseJson(source, file), file);
    const settings = checkTokenizerConfig(config ? parseJson(config, configFile) : {}, configFile);
    this.sha256 = createHash('sha256').update(source).digest('hex');
    this.library = buildLibraryTokenizer(json, file);
    this.preTokenizer = createPreTokenizer(json.pre_tokenizer);
    const added = json.added_tokens ?? [];
    const isNormalized = (token: (typeof added)[number]) => token.normalized ?? !token.special;
    this.rawTokens = new AddedTokenFinder(
      added.filter((token) => !isNormalized(token)),
      (text) => text,
    );
    this.normalizedTokens = new AddedTokenFinder(added.filter(isNormalized), (text) => this.normalize(text));
    this.specialIds = new Set(added.filter((token) => token.special).map((token) => token.id));
    this.vocabSize = this.library.model.vocab.length;
    this.bosId = this.namedId(settings.bos_token, 'bos_token', configFile);
    this.eosId = this.namedId(settings.eos_token, 'eos_token', configFile);
    this.padId = this.namedId(settings.pad_token, 'pad_token', configFile);
    [this.prefix, this.suffix] = this.frame(settings, file);
    this.bytes = isByteLevel(json.decoder) ? bytesById(this.library.model.vocab) : null;
  }

  /** The ids of a text. Any string encodes; unpaired surrogates count as U+FFFD. */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const framed = options.addSpecialTokens ?? true;
    const ids = framed ? [...this.prefix] : [];
    let atStart = true;
    for (const raw of this.rawTokens.split(text)) {
      if (raw.id !== undefined) ids.push(raw.id);
      else this.encodeStretch(raw.text, atStart, ids);
      atStart = false;
    }
    if (framed) ids.push(...this.suffix);
    return Int32Array.from(ids);
  }

  /** The text of ids. Ids outside the vocabulary are left out, as Hugging Face does; broken UTF-8 becomes U+FFFD. */
  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const stream = this.bytes ? new ByteStream(this.bytes) : undefined;
    const kept = this.visible(ids, options);
    if (stream === undefined) return this.decodeWithLibrary(kept);
    return kept.map((id) => stream.push(id)).join('') + stream.end();
  }

  /**
   * Decodes ids as they come. Each `push` returns the text that is certain now, never part of a character; `end`
   * returns the rest. Together they are what `decode` gives for all the ids.
   */
  stream(options: DecodeOptions = {}): TextStream {
    const inner = this.bytes
      ? new ByteStream(this.bytes)
      : new WindowStream((ids) => this.decodeWithLibrary(ids));
    return {
      push: (id) => (this.visible([id], options).length === 1 ? inner.push(id) : ''),
      end: () => inner.end(),
    };
  }

  /** The id of a token by its spelling in the vocabulary, if it has one. */
  tokenToId(token: string): number | undefined {
    return this.library.model.tokens_to_ids.get(token);
  }

  /** The spelling of an id in the vocabulary (byte alphabet), if it has one. */
  idToToken(id: number): string | undefined {
    return this.library.model.vocab[id];
  }

  /** Whether the vocabulary is spelled in the byte-level alphabet. */
  get isByteLevel(): boolean {
    return this.bytes !== null;
  }

  /** Whether an id is a special token (bos, eos, ...), which stands for no text. */
  isSpecial(id: number): boolean {
    return this.specialIds.has(id);
  }

  /**
   * The bytes that a token adds to a text; of a special token those of its name. Exact for byte-level and byte-fallback
   * vocabularies, as good as a token can be shown alone for others.
   */
  tokenBytes(id: number): Uint8Array {
    const known = this.bytes?.get(id);
    if (known) return known;
    const token = this.idToToken(id) ?? '';
    const byte = BYTE_FALLBACK.exec(token);
    if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
    return new TextEncoder().encode(token.replaceAll(METASPACE, ' '));
  }

  private visible(ids: ArrayLike<number>, { skipSpecialTokens = false }: DecodeOptions): number[] {
    const { vocab } = this.library.model;
    const isVisible = (id: number) =>
      vocab[id] !== undefined && !(skipSpecialTokens && this.specialIds.has(id));
    return Array.from(ids).filter(isVisible);
  }

  private decodeWithLibrary(ids: number[]): string {
    return ids.length === 0 ? '' : this.library.decode(ids, { clean_up_tokenization_spaces: false });
  }

  private normalize(text: string): string {
    return this.library.normalizer?.(text) ?? text;
  }

  /** Encodes text without raw added tokens: normalised, then cut at the tokens that are looked for in that form. */
  private encodeStretch(text: string, atStart: boolean, ids: number[]): void {
    for (const [index, section] of this.normalizedTokens.split(this.normalize(text)).entries()) {
      if (section.id !== undefined) {
        ids.push(section.id);
        continue;
      }
      for (const piece of this.preTokenizer.cut(section.text, atStart && index === 0)) {
        for (const id of this.pieceIds(piece)) ids.push(id);
      }
    }
  }

  private pieceIds(piece: string): number[] {
    const known = this.cache.get(piece);
    if (known !== undefined) return known;
    const { model } = this.library;
    const ids = model([this.preTokenizer.spell(piece)])
      .map((token) => model.tokens_to_ids.get(token) ?? model.unk_token_id)
      .filter((id) => id !== undefined);
    if (piece.length <= MAX_CACHED_LENGTH) {
      if (this.cache.size >= MAX_CACHED_PIECES) this.cache.clear();
      this.cache.set(piece, ids);
    }
    return ids;
  }

  private namedId(token: TokenizerConfig['bos_token'], field: string, file: string): number | undefined {
    if (token === undefined || token === null) return undefined;
    const name = typeof token === 'string' ? token : token.content;
    const id = this.tokenToId(name);
    if (id === undefined) {
      throw new UserError(
        `${file}: ${field}: ${JSON.stringify(name)} is not in the vocabulary of tokenizer.json`,
      );
    }
    return id;
  }

  /** The ids that the post-processor puts before and after a text, and the bos and eos that the config adds. */
  private frame(settings: TokenizerConfig, file: string): [number[], number[]] {
    const sentinel = ' text ';
    const tokens = this.library.post_processor?.([sentinel], null, true).tokens ?? [sentinel];
    const at = tokens.indexOf(sentinel);
    if (at < 0 || tokens.lastIndexOf(sentinel) !== at) {
      throw new UserError(`${file}: post_processor: it must keep the text once, "Sequence": {"id": "A"}`);
    }
    const ids = tokens.map((token) => this.tokenToId(token));
    const missing = tokens.find((_, i) => i !== at && ids[i] === undefined);
    if (missing !== undefined) {
      throw new UserError(`${file}: post_processor: ${JSON.stringify(missing)} is not in the vocabulary`);
    }
    const prefix = ids.slice(0, at) as number[];
    const suffix = ids.slice(at + 1) as number[];
    const { bosId, eosId } = this;
    if (settings.add_bos_token && bosId !== undefined && prefix[0] !== bosId) prefix.unshift(bosId);
    if (settings.add_eos_token && eosId !== undefined && suffix.at(-1) !== eosId) suffix.push(eosId);
    return [prefix, suffix];
  }
}

function parseJson(bytes: Uint8Array, file: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new UserError(`${file}: it is not valid JSON: ${(error as Error).message}`);
  }
}

/** The library's tokenizer without its pre-tokenizer. Patterns that it cannot translate are named by their section. */
function buildLibraryTokenizer(json: TokenizerJson, file: string): LibraryTokenizer {
  const parts = {
    normalizer: json.normalizer ? withUnicodeStrip(json.normalizer) : null,
    post_processor: json.post_processor ?? null,
    decoder: json.decoder ?? null,
  };
  const empty = {
    normalizer: null,
    post_processor: null,
    decoder: null,
    pre_tokenizer: null,
    added_tokens: [],
  };
  const emptyModel = { type: 'BPE', vocab: {}, merges: [] };
  for (const [section, value] of Object.entries(parts)) {
    explain(file, section, () => new LibraryTokenizer({ ...empty, model: emptyModel, [section]: value }, {}));
  }
  explain(file, 'pre_tokenizer', () => createPreTokenizer(json.pre_tokenizer));
  const whole = { ...empty, ...parts, model: json.model, added_tokens: json.added_tokens ?? [] };
  return explain(file, 'model', () => new LibraryTokenizer(whole, {}));
}

function explain<T>(file: string, section: string, build: () => T): T {
  try {
    return build();
  } catch (error) {
    throw new UserError(`${file}: ${section}: it cannot be used: ${(error as Error).message}`);
  }
}

/** Strip by Unicode's white space; the library trims by JavaScript's, which has U+FEFF and lacks U+0085. */
function withUnicodeStrip(config: NormalizerConfig): NormalizerConfig {
  if (config.type === 'Sequence') return { ...config, normalizers: config.normalizers.map(withUnicodeStrip) };
  if (config.type !== 'Strip') return config;
  const replace = (pattern: string): NormalizerConfig => ({
    type: 'Replace',
    pattern: { Regex: pattern },
    content: '',
  });
  const left = config.strip_left ? [replace('\\A\\s+')] : [];
  const right = config.strip_right ? [replace('(?<!\\s)\\s+\\z')] : [];
  return { type: 'Sequence', normalizers: [...left, ...right] };
}

function isByteLevel(decoder: TokenizerJson['decoder']): boolean {
  if (decoder?.type === 'Sequence') return decoder.decoders.length === 1 && isByteLevel(decoder.decoders[0]);
  return decoder?.type === 'ByteLevel';
}

/** Ids need not be dense: only those in the vocabulary have an entry. */
function bytesById(vocab: string[]): Map<number, Uint8Array> {
  const bytes = new Map<number, Uint8Array>();
  vocab.forEach((token, id) => {
    bytes.set(id, tokenBytes(token));
  });
  return bytes;
}
