import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { tokenIds } from './options.js';
import { runs } from './session.js';

/** `fathom tokenizer encode|decode`. */
export function addTokenizer(program: Command): void {
  const group = program.command('tokenizer').description('encode and decode text');
  addEncode(group);
  addDecode(group);
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
