import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import { Phases } from '../report/phases.js';
import { duration } from '../report/units.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { addCorpusOptions, type CorpusFlags, corpusOf } from './corpus.js';
import { integer, tokenIds } from './options.js';
import { runs, type Session } from './session.js';

/** `fathom tokenizer train|encode|decode`. */
export function addTokenizer(program: Command): void {
  const group = program.command('tokenizer').description('train a tokenizer, encode and decode with one');
  addTrain(group);
  addEncode(group);
  addDecode(group);
}

interface TrainFlags extends CorpusFlags {
  out: string;
  vocabSize: number;
  minFrequency: number;
}

function addTrain(group: Command): void {
  const command = group
    .command('train')
    .description('learn a byte-level BPE vocabulary and write tokenizer.json and tokenizer_config.json')
    .requiredOption('--out <dir>', 'the folder to write to');
  addCorpusOptions(command)
    .option('--vocab-size <n>', 'tokens in all, special ones and the 256 bytes included', integer(1), 4096)
    .option('--min-frequency <n>', 'how often a pair must occur to become a token', integer(1), 2);
  runs<TrainFlags>(command, trainTokenizer);
}

async function trainTokenizer(session: Session, { out, vocabSize, minFrequency, ...flags }: TrainFlags) {
  const { trainBpe } = await import('../text/bpe.js');
  const { readDocuments } = await import('../text/corpus.js');
  const { saveTokenizer, SPECIAL_TOKENS } = await import('../text/tokenizer-files.js');
  const phases = new Phases(session);
  const started = performance.now();
  const vocabulary = await trainBpe(readDocuments(corpusOf(flags)), {
    vocabSize,
    specialTokens: Object.values(SPECIAL_TOKENS),
    minFrequency,
    onProgress: phases.report,
  });
  phases.end();
  saveTokenizer(out, vocabulary);
  const seconds = (performance.now() - started) / 1000;
  const [tokens, merges] = [vocabulary.tokens.length, vocabulary.merges.length];
  const fewer = tokens < vocabSize ? ` (${vocabSize} asked for; no more pairs are frequent enough)` : '';
  return {
    json: { out, vocabSize: tokens, merges, seconds },
    text: `${tokens} tokens, ${merges} merges${fewer} in ${duration(seconds)}; written to ${out}`,
  };
}

interface EncodeOptions {
  text?: string;
  file?: string;
  special: boolean;
}

function addEncode(group: Command): void {
  const command = group
    .command('encode')
    .description('turn text into token ids; without --text or --file it is read from standard input')
    .argument('<tokenizer>', 'a checkpoint folder or a tokenizer.json')
    .addOption(new Option('--text <text>', 'the text').conflicts('file'))
    .option('--file <path>', 'a UTF-8 file that holds the text')
    .option('--no-special', 'leave out what the tokenizer adds, usually a token that begins the text');
  runs<EncodeOptions>(command, async (_session, options, [source]) => {
    const tokenizer = await openTokenizer(source!);
    const text = options.text ?? (await readInput(options.file));
    const ids = [...tokenizer.encode(text, { addSpecialTokens: options.special })];
    const tokens = ids.map((id) => tokenizer.idToToken(id));
    return { json: { ids, tokens }, text: ids.join(' ') };
  });
}

interface DecodeOptions {
  tokens?: number[];
  file?: string;
  special: boolean;
}

function addDecode(group: Command): void {
  const command = group
    .command('decode')
    .description('turn token ids into text; without --tokens or --file they are read from standard input')
    .argument('<tokenizer>', 'a checkpoint folder or a tokenizer.json')
    .addOption(new Option('--tokens <ids>', 'the ids, as in 12,7,301').argParser(tokenIds).conflicts('file'))
    .option('--file <path>', 'a file that holds the ids')
    .option('--no-special', 'leave out special tokens');
  runs<DecodeOptions>(command, async (_session, options, [source]) => {
    const tokenizer = await openTokenizer(source!);
    const ids = options.tokens ?? parseIds(await readInput(options.file), options.file);
    const wrong = ids.find((id) => tokenizer.idToToken(id) === undefined);
    if (wrong !== undefined) throw new UsageError(`token id ${wrong} is not in the vocabulary of ${source}`);
    const text = tokenizer.decode(ids, { skipSpecialTokens: !options.special });
    return { json: { text }, text };
  });
}

function parseIds(text: string, file = 'standard input'): number[] {
  try {
    return tokenIds(text);
  } catch (error) {
    throw new UsageError(`${file}: ${(error as Error).message}`);
  }
}

async function openTokenizer(source: string): Promise<Tokenizer> {
  const { statSync } = await import('node:fs');
  const { Tokenizer } = await import('../text/tokenizer.js');
  const isFolder = statSync(source).isDirectory();
  return isFolder ? Tokenizer.fromFolder(source) : Tokenizer.fromFile(source);
}

/** A file's text, or standard input's. */
async function readInput(file: string | undefined): Promise<string> {
  const { readFileSync } = await import('node:fs');
  if (file !== undefined) return readFileSync(file, 'utf8');
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += chunk;
  return text;
}
