import type { GenerateRequest, PromptToken, TokenDetail } from '../infer/engine.js';
import { answer, type Format } from './answer.js';
import { badRequest } from './errors.js';
import type { Exchange } from './exchange.js';
import type { Job } from './generation.js';
import { offsetLogprobs } from './logprobs.js';
import { type ServedModel, tokenLimit } from './model.js';
import { samplingOf } from './sampling.js';
import { type CompletionRequest, completionSchema } from './schema.js';
import type { Service } from './service.js';
import { validate } from './validation.js';

/** As OpenAI's `max_tokens` where it is absent. */
const DEFAULT_TOKENS = 16;

/** `POST /v1/completions`. */
export async function complete(service: Service, exchange: Exchange, given: object): Promise<void> {
  const body = validate(completionSchema, given);
  service.checkModel(body.model);
  checkCombination(body);
  const prompts = await encodePrompts(body.prompt, service.model);
  const echoes = body.echo ? await Promise.all(prompts.map((ids) => service.model.prompts.decode(ids))) : [];
  await answer(service, exchange, jobsOf(body, prompts, service), formatOf(body, echoes), {
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
  });
}

function checkCombination(body: CompletionRequest): void {
  if (body.stream_options && !body.stream)
    throw badRequest("The 'stream_options' parameter is only allowed with 'stream'.", 'stream_options');
  if (body.best_of && body.best_of !== (body.n ?? 1))
    throw badRequest(
      "'best_of' other than 'n' is not supported by this server.",
      'best_of',
      'unsupported_value',
    );
}

/** Token ids of every prompt. */
async function encodePrompts(prompt: CompletionRequest['prompt'], model: ServedModel): Promise<number[][]> {
  if (typeof prompt === 'string') return [await encode(prompt, model)];
  if (typeof prompt[0] === 'number') return [known(prompt as number[], model)];
  const given = prompt as (string | number[])[];
  return Promise.all(given.map((p) => (typeof p === 'string' ? encode(p, model) : known(p, model))));
}

async function encode(text: string, { prompts }: ServedModel): Promise<number[]> {
  const ids = await prompts.text(text);
  if (ids.length > 0) return ids;
  throw badRequest("'prompt' is empty, and this tokenizer adds no first token.", 'prompt', 'invalid_value');
}

function known(ids: number[], { engine: { info } }: ServedModel): number[] {
  const { vocab_size: size } = info.config;
  const wrong = ids.find((id) => id >= size);
  if (wrong === undefined) return ids;
  throw badRequest(
    `'prompt' has the token ${wrong}; the model knows 0 to ${size - 1}.`,
    'prompt',
    'invalid_value',
  );
}

/** `n` alternatives of every prompt; with a seed, each alternative has one of its own. */
function jobsOf(body: CompletionRequest, prompts: readonly number[][], { model }: Service): Job[] {
  const alternatives = body.n ?? 1;
  const sampling = samplingOf(body, model);
  return prompts.flatMap((prompt, p) => {
    const maxTokens = tokenLimit(model, prompt, body.max_tokens ?? DEFAULT_TOKENS, 'prompt');
    return Array.from({ length: alternatives }, (_, alternative) => ({
      index: p * alternatives + alternative,
      alternative,
      request: {
        ...sampling,
        ...(sampling.seed === undefined ? {} : { seed: sampling.seed + alternative }),
        ...logprobsOf(body),
        prompt,
        maxTokens,
      },
    }));
  });
}

/** Log-probabilities of new tokens and, where the prompt is echoed, of its tokens as well. */
function logprobsOf({
  logprobs,
  echo,
}: CompletionRequest): Pick<GenerateRequest, 'logprobs' | 'promptLogprobs'> {
  if (typeof logprobs !== 'number') return {};
  return echo ? { logprobs, promptLogprobs: logprobs } : { logprobs };
}

/** @param echoes the texts of the prompts where they come before the answers, else none */
function formatOf(body: CompletionRequest, echoes: readonly string[]): Format {
  const alternatives = body.n ?? 1;
  const echoed = (job: Job) => echoes[Math.floor(job.index / alternatives)] ?? '';
  const logprobs = offsetLogprobs();
  const choice = (
    job: Job,
    text: string,
    details: readonly (TokenDetail | PromptToken)[] | undefined,
    reason: string | null,
  ) => ({
    index: job.index,
    text,
    logprobs: typeof body.logprobs === 'number' ? logprobs(job.index, details ?? []) : null,
    finish_reason: reason,
  });
  return {
    object: 'text_completion',
    chunkObject: 'text_completion',
    prefix: 'cmpl',
    whole: (job, { text, details, prompt, reason }) =>
      choice(job, echoed(job) + text, [...prompt, ...details], reason),
    opening: (job, prompt) => (body.echo ? choice(job, echoed(job), prompt, null) : undefined),
    piece: (job, text, details) => choice(job, text, details, null),
    closing: (job, reason) => choice(job, '', [], reason),
  };
}
