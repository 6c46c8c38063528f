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
import { describeRanks, onEngine, openHere, type ServingRankFlags } from './rank-engine.js';
import { addServingRankOptions } from './ranks.js';
import { type Outcome, runs, type Session } from './session.js';

interface GenerateFlags extends InferenceFlags, SamplingFlags, ServingRankFlags {
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
  addServingRankOptions(addInferenceOptions(command));
  runs<GenerateFlags>(command, (session, flags, [folder]) =>
    onEngine(folder!, engineOptions(flags), flags, openHere, (engine) => generate(session, engine, flags)),
  );
}

async function generate(session: Session, engine: Engine, flags: GenerateFlags): Promise<Outcome> {
  const schema = flags.jsonSchema ? (readJsonFile(flags.jsonSchema) as object) : undefined;
  const { prompt, maxTokens, stop = [], ignoreEos = false } = flags;
  const base = { prompt, maxTokens, stop, ignoreEos, ...samplingOptions(flags, engine.info) };
  const request = schema ? { ...base, responseFormat: { type: 'json_schema' as const, schema } } : base;
  session.print(prompt);
  const written = await interruptible((signal) => write(session, engine, request, signal));
  session.print('\n');
  const paged = describePaging(await engine.paging(), engine.info);
  const { ranks } = engine.info;
  const stats = await engine.stats();
  session.note(describeUsage(written.usage));
  for (const line of [paged, describeRanks(engine.info, stats)]) if (line) session.note(line);
  const over = ranks ? { ranks, experts: stats.experts } : {};
  return { json: { ...written, tokensPerSecond: tokensPerSecond(written.usage) ?? null, ...over } };
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
