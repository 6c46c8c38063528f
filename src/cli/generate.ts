import type { Command } from 'commander';
import { readJsonFile } from '../files.js';
import type { Engine, GenerateRequest, Usage } from '../infer/engine.js';
import {
  addInferenceOptions,
  addSamplingOptions,
  describePaging,
  describeUsage,
  engineOptions,
  type InferenceFlags,
  type SamplingFlags,
  samplingOptions,
  tokensPerSecond,
} from './inference.js';
import { interruptible } from './interrupt.js';
import { integer } from './options.js';
import { runs, type Session } from './session.js';

interface GenerateFlags extends InferenceFlags, SamplingFlags {
  prompt: string;
  maxTokens: number;
  ignoreEos?: boolean;
  jsonSchema?: string;
}

/** `fathom generate DIR`. */
export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .description('continue a text')
    .argument('<dir>', 'a checkpoint folder with its tokenizer')
    .requiredOption('-p, --prompt <text>', 'the text to continue')
    .option('--max-tokens <n>', 'tokens to add at most', integer(1), 100)
    .option('--seed <n>', 'the same seed writes the same text', integer(0), 0)
    .option('--ignore-eos', 'do not end where the model ends its text')
    .option('--json-schema <file>', 'write JSON that this schema allows, and end with it');
  addSamplingOptions(command);
  runs<GenerateFlags>(addInferenceOptions(command), async (session, flags, [folder]) => {
    const { openEngine } = await import('../infer/open-engine.js');
    const schema = flags.jsonSchema ? (readJsonFile(flags.jsonSchema) as object) : undefined;
    const engine = await openEngine(folder!, engineOptions(flags));
    const { prompt, maxTokens, stop = [], ignoreEos = false } = flags;
    const base = { prompt, maxTokens, stop, ignoreEos, ...samplingOptions(flags, engine.info) };
    const request = schema ? { ...base, responseFormat: { type: 'json_schema' as const, schema } } : base;
    session.print(prompt);
    const written = await interruptible((signal) => write(session, engine, request, signal));
    session.print('\n');
    const paged = describePaging(await engine.paging(), engine.info);
    await engine.close();
    session.note(describeUsage(written.usage));
    if (paged) session.note(paged);
    return { json: { ...written, tokensPerSecond: tokensPerSecond(written.usage) ?? null } };
  });
}

/** What the engine wrote. */
export interface Written {
  text: string;
  /** Ids. */
  tokens: number[];
  reason: string;
  usage: Usage;
}

/** Prints the text of a request as it comes. */
export async function write(
  session: Session,
  engine: Engine,
  request: GenerateRequest,
  signal?: AbortSignal,
): Promise<Written> {
  let text = '';
  const tokens: number[] = [];
  for await (const event of engine.generate(request, signal)) {
    if (event.type === 'done') return { text, tokens, reason: event.reason, usage: event.usage };
    text += event.text;
    tokens.push(...event.ids);
    session.print(event.text);
  }
  throw new Error('the engine ended without a reason');
}
