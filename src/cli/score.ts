import { type Command, Option } from 'commander';
import { UsageError, UserError } from '../errors.js';
import type { OpenModel } from '../infer/open.js';
import type { Score } from '../infer/score.js';
import { table } from '../report/table.js';
import { addEngineOptions, type EngineFlags, PRECISIONS, type Precision } from './engine.js';
import { integer, tokenIds } from './options.js';
import { runs } from './session.js';

interface ScoreFlags extends EngineFlags {
  text?: string;
  tokens?: number[];
  file?: string;
  top: number;
  precision?: Precision;
}

/** `fathom score DIR`. */
export function addScore(program: Command): void {
  const command = program
    .command('score')
    .description('say how likely a model finds a text')
    .argument('<dir>', 'a checkpoint folder; its tokenizer is needed for text only')
    .addOption(new Option('--text <text>', 'the text').conflicts(['tokens', 'file']))
    .addOption(
      new Option('--tokens <ids>', 'token ids, as in 12,7,301').argParser(tokenIds).conflicts('file'),
    )
    .option('--file <path>', 'a UTF-8 file that holds the text')
    .option('--top <n>', 'list so many of the most likely tokens at each place', integer(0), 0)
    .addOption(
      new Option('--precision <name>', 'the number formats to compute in (default: as stored)').choices(
        PRECISIONS,
      ),
    );
  runs<ScoreFlags>(addEngineOptions(command), async (_session, flags, [folder]) => {
    if (flags.text === undefined && flags.tokens === undefined && flags.file === undefined) {
      throw new UsageError('nothing to score; give --text, --tokens or --file');
    }
    const { openModel } = await import('../infer/open.js');
    const { score } = await import('../infer/score.js');
    const opened = openModel(folder!, flags);
    const tokens = flags.tokens ?? (await encode(folder!, opened, flags));
    checkTokens(tokens, opened);
    const result = score(opened.model, opened.recipe, tokens, flags.top);
    return { json: result, text: toText(result) };
  });
}

async function encode(folder: string, { model }: OpenModel, { text, file }: ScoreFlags): Promise<number[]> {
  const { readFileSync } = await import('node:fs');
  const { openTokenizer } = await import('../infer/open.js');
  return [...openTokenizer(folder, model).encode(text ?? readFileSync(file!, 'utf8'))];
}

function checkTokens(tokens: readonly number[], { model }: OpenModel): void {
  const { vocab_size: vocabulary, max_position_embeddings: context } = model.config;
  const wrong = tokens.find((id) => id >= vocabulary);
  if (wrong !== undefined)
    throw new UsageError(`token id ${wrong} is beyond the model's vocabulary of ${vocabulary}`);
  if (tokens.length < 2)
    throw new UserError('a single token has nothing before it; score at least two tokens');
  if (tokens.length > context) {
    throw new UserError(
      `${tokens.length} tokens exceed the model's context of ${context}; score shorter pieces`,
    );
  }
}

function toText({ tokens, logprobs, meanNll, perplexity, top }: Score): string {
  const summary = `perplexity ${perplexity.toFixed(3)} over ${logprobs.length} tokens (${meanNll.toFixed(4)} nats a token)`;
  if (top[0]?.length === 0) return summary;
  const rows = tokens.map((id, t) => [
    String(t),
    String(id),
    t === 0 ? '' : logprobs[t - 1]!.toFixed(4),
    top[t]!.map((next) => `${next.id} (${next.logprob.toFixed(4)})`).join('  '),
  ]);
  const right = (title: string) => ({ title, align: 'right' as const });
  return `${table([right('place'), right('token'), right('log p'), { title: 'most likely next (log p)' }], rows)}\n\n${summary}`;
}
