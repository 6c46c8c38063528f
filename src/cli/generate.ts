import type { Command } from 'commander';
import { UserError } from '../errors.js';
import { rate } from '../report/units.js';
import { addEngineOptions, type EngineFlags } from './engine.js';
import { integer, real } from './options.js';
import { runs } from './session.js';

interface GenerateFlags extends EngineFlags {
  prompt: string;
  maxTokens: number;
  temperature: number;
  topP: number;
  topK: number;
  seed: number;
}

/** `fathom generate DIR`. */
export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .description('continue a text')
    .argument('<dir>', 'a checkpoint folder with its tokenizer')
    .requiredOption('-p, --prompt <text>', 'the text to continue')
    .option('--max-tokens <n>', 'tokens to add at most', integer(1), 100)
    .option('--temperature <t>', '0 takes the most likely token, 1 samples as the model says', real(0), 0.8)
    .option(
      '--top-p <p>',
      'sample from the most likely tokens that have this share together',
      real(0, 1),
      0.95,
    )
    .option('--top-k <k>', 'sample from so many of the most likely tokens; 0: from all', integer(0), 0)
    .option('--seed <n>', 'the same seed writes the same text', integer(0), 0);
  runs<GenerateFlags>(addEngineOptions(command), async (session, flags, [folder]) => {
    const { openModel, openTokenizer } = await import('../infer/open.js');
    const { generate } = await import('../infer/generate.js');
    const { model, recipe } = openModel(folder!, flags);
    const tokenizer = openTokenizer(folder!, model);
    const prompt = [...tokenizer.encode(flags.prompt)];
    checkPrompt(prompt.length, model.config.max_position_embeddings);
    session.print(flags.prompt);
    const result = generate(model, tokenizer, recipe, prompt, flags, (piece) => session.print(piece));
    session.print('\n');
    const { text, tokens, tokensPerSecond = null } = result;
    if (tokensPerSecond !== null) session.note(`${tokens.length} tokens, ${rate(tokensPerSecond, 'tokens')}`);
    return { json: { text, tokens, tokensPerSecond } };
  });
}

function checkPrompt(tokens: number, context: number): void {
  if (tokens === 0)
    throw new UserError('the prompt is empty and this tokenizer adds no first token; give some text');
  if (tokens < context) return;
  throw new UserError(`the prompt has ${tokens} tokens, the model's context ${context}; shorten it`);
}
