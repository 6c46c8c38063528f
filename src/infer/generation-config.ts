import { existsSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { readJsonFile } from '../files.js';
import { describeIssues } from '../spec/model.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { SamplingOptions } from './engine.js';

const id = z.int().nonnegative();
const ids = z.union([id, z.array(id)]).nullish();

/** What of `generation_config.json` is followed; the rest is for other software. */
const generationSchema = z.looseObject({
  eos_token_id: ids,
  temperature: z.number().nullish(),
  top_k: z.number().nullish(),
  top_p: z.number().nullish(),
  min_p: z.number().nullish(),
  repetition_penalty: z.number().nullish(),
});
const configSchema = z.looseObject({ eos_token_id: ids });

export interface GenerationConfig {
  /** Tokens that end a text. */
  endTokens: ReadonlySet<number>;
  /** What the model's authors recommend, for requests that say nothing else. */
  sampling: SamplingOptions;
}

/**
 * How a model's texts end and how they are best sampled: `generation_config.json`, else `config.json`, and the
 * tokenizer's own end-of-sequence token.
 * @throws UserError naming file and field
 */
export function readGenerationConfig(folder: string, tokenizer: Tokenizer): GenerationConfig {
  const generation = read(path.join(folder, 'generation_config.json'), generationSchema);
  const config = read(path.join(folder, 'config.json'), configSchema);
  const ends = [generation?.eos_token_id ?? config?.eos_token_id, tokenizer.eosId].flat();
  const { temperature, top_k, top_p, min_p, repetition_penalty } = generation ?? {};
  const sampling = {
    temperature,
    topK: top_k,
    topP: top_p,
    minP: min_p,
    repetitionPenalty: repetition_penalty,
  };
  return {
    endTokens: new Set(ends.filter((end) => typeof end === 'number')),
    sampling: Object.fromEntries(Object.entries(sampling).filter(([, value]) => value != null)),
  };
}

function read<T>(file: string, schema: z.ZodType<T>): T | undefined {
  if (!existsSync(file)) return undefined;
  const parsed = schema.safeParse(readJsonFile(file));
  if (parsed.success) return parsed.data;
  throw new UserError(`${file}: ${describeIssues(parsed.error)}`);
}
