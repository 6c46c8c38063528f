/**
 * Cutting text into the pieces that the vocabulary model then encodes one by one.
 *
 * The run-time library translates the regular expressions (Oniguruma to JavaScript) but its own pre-tokenizers
 * differ from Hugging Face's: JavaScript's `\s` and `\w` instead of Unicode's, `invert` and `Removed` of Split,
 * MergedWithPrevious, MergedWithNext and Contiguous missing. Those are written here after the documented behaviour
 * and compared with `tokenizers` by goldens. Cutting and byte spelling are kept apart, so that callers can cache by piece.
 * What is left are characters newer than one side's Unicode tables (Node 20 has version 17, `tokenizers` 0.23 an older one).
 */
import { BYTE_TO_CHAR } from './byte-level.js';
import { SplitPreTokenizer } from './library.js';
import type { PreTokenizerConfig, SPLIT_BEHAVIORS } from './tokenizer-schema.js';

/** How one kind of tokenizer cuts text. */
export interface PreTokenizer {
  /** Cuts `text`; `atStart` says that it begins the input (Metaspace's scheme `first` asks). */
  cut(text: string, atStart: boolean): string[];
  /** The spelling in which the model knows a piece: the byte alphabet, or the piece itself. */
  spell(piece: string): string;
}

type Stage = (text: string, atStart: boolean) => string[];
type Config<T extends PreTokenizerConfig['type']> = Extract<PreTokenizerConfig, { type: T }>;
type Behavior = (typeof SPLIT_BEHAVIORS)[number];

/** GPT-2's words (Radford et al. 2019), with Unicode's white space. */
const GPT2_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
/** `\w+|[^\w\s]+` with the word characters of Unicode's UTS 18, as in Rust's regex crate. */
const WORDS_OR_SIGNS =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu;
const WHITE_SPACE = /\p{White_Space}/gu;
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;
const NUMERIC = /\p{N}/gu;

/** Builds what `pre_tokenizer` of a tokenizer.json describes; without one, a text is a single piece. */
export function createPreTokenizer(config: PreTokenizerConfig | null | undefined): PreTokenizer {
  const stages = config ? stagesOf(config) : [];
  const spellsBytes = stages.at(-1) === spellBytesStage;
  if (spellsBytes) stages.pop();
  return {
    cut: (text, atStart) =>
      stages.reduce(
        (pieces, stage) => pieces.flatMap((piece, i) => stage(piece, atStart && i === 0)),
        [text],
      ),
    spell: spellsBytes ? spellBytes : (piece) => piece,
  };
}

function spellBytes(text: string): string {
  return Array.from(Buffer.from(text, 'utf8'), (byte) => BYTE_TO_CHAR[byte]).join('');
}

const spellBytesStage: Stage = (text) => [spellBytes(text)];

function stagesOf(config: PreTokenizerConfig): Stage[] {
  switch (config.type) {
    case 'Sequence':
      return config.pretokenizers.flatMap(stagesOf);
    case 'ByteLevel':
      return byteLevelStages(config);
    case 'Split':
      return [split(toRegExp(config.pattern), config.behavior, config.invert ?? false)];
    case 'Whitespace':
      return [split(WORDS_OR_SIGNS, 'Removed', true)];
    case 'WhitespaceSplit':
      return [split(WHITE_SPACE, 'Removed')];
    case 'BertPreTokenizer':
      return [split(WHITE_SPACE, 'Removed'), split(PUNCTUATION, 'Isolated')];
    case 'Punctuation':
      return [split(PUNCTUATION, config.behavior)];
    case 'Digits':
      return [split(NUMERIC, config.individual_digits ? 'Isolated' : 'Contiguous')];
    case 'CharDelimiterSplit':
      return [split(toRegExp({ String: config.delimiter }), 'Removed')];
    case 'FixedLength':
      return [(text) => chunks(Array.from(text), config.length).map((chars) => chars.join(''))];
    case 'Metaspace':
      return metaspaceStages(config);
  }
}

function byteLevelStages(config: Config<'ByteLevel'>): Stage[] {
  const stages: Stage[] = [];
  if (config.add_prefix_space) stages.push((text) => [text.startsWith(' ') ? text : ` ${text}`]);
  if (config.use_regex ?? true) stages.push(split(GPT2_WORDS, 'Isolated'));
  stages.push(spellBytesStage);
  return stages;
}

function metaspaceStages(config: Config<'Metaspace'>): Stage[] {
  const { replacement } = config;
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? 'never' : 'always');
  const replace: Stage = (text, atStart) => {
    const replaced = text.replaceAll(' ', replacement);
    const prepend = scheme === 'always' || (scheme === 'first' && atStart);
    return [prepend && !replaced.startsWith(replacement) ? replacement + replaced : replaced];
  };
  if (config.split === false) return [replace];
  return [replace, split(toRegExp({ String: replacement }), 'MergedWithNext')];
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
}

/**
 * The library's translation of a pattern to JavaScript; throws a SyntaxError when there is none. It folds `(?i:...)` within
 * ASCII only; the two letters outside ASCII that fold into it (ſ and the Kelvin sign) are put in here.
 */
function toRegExp(pattern: Config<'Split'>['pattern']): RegExp {
  const library = new SplitPreTokenizer({ type: 'Split', pattern, behavior: 'Isolated', invert: true });
  const regexp = library.pattern!;
  if (!('Regex' in pattern) || !String(pattern.Regex).includes('(?i:')) return regexp;
  const folded = regexp.source.replaceAll('[sS]', '[sS\u017f]').replaceAll('[kK]', '[kK\u212a]');
  return new RegExp(folded, regexp.flags);
}

/** A stretch of text, and whether the pattern matched it. */
interface Span {
  start: number;
  end: number;
  matched: boolean;
}

/** A stage that cuts at the matches of `pattern`; `invert` swaps what counts as matched. */
function split(pattern: RegExp, behavior: Behavior, invert = false): Stage {
  const arrange = ARRANGEMENTS[behavior];
  return (text) => arrange(spansOf(text, pattern, invert)).map(({ start, end }) => text.slice(start, end));
}

/** The matches of `pattern` and the gaps between them, in order, together covering the text. Empty ones are left out. */
function spansOf(text: string, pattern: RegExp, invert: boolean): Span[] {
  const spans: Span[] = [];
  let done = 0;
  const push = (end: number, matched: boolean) => {
    if (end > done) spans.push({ start: done, end, matched: matched !== invert });
    done = end;
  };
  for (const match of text.matchAll(pattern)) {
    push(match.index, false);
    push(match.index + match[0].length, true);
  }
  push(text.length, false);
  return spans;
}

const ARRANGEMENTS: Record<Behavior, (spans: Span[]) => Span[]> = {
  Isolated: (spans) => spans,
  Removed: (spans) => spans.filter((span) => !span.matched),
  Contiguous: (spans) => joinSpans(spans, (previous, span) => previous.matched === span.matched),
  MergedWithPrevious: (spans) => joinSpans(spans, (previous, span) => span.matched && !previous.matched),
  MergedWithNext: (spans) => joinSpans(spans, (previous, span) => previous.matched && !span.matched),
};

/** Joins neighbours for which `joins` holds, asked of the spans as the pattern found them. */
function joinSpans(spans: Span[], joins: (previous: Span, span: Span) => boolean): Span[] {
  const joined: Span[] = [];
  for (const [index, span] of spans.entries()) {
    if (index > 0 && joins(spans[index - 1], span)) joined[joined.length - 1].end = span.end;
    else joined.push({ ...span });
  }
  return joined;
}
