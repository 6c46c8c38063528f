import type { GenerateRequest, SamplingOptions } from '../infer/engine.js';
import { badRequest } from './errors.js';
import type { ServedModel } from './model.js';
import type { ChatRequest, CompletionRequest } from './schema.js';

type Shared = Pick<CompletionRequest, keyof CompletionRequest & keyof ChatRequest>;

/** How tokens are chosen, and where to stop, as the request asks; the engine fills in the rest. */
export function samplingOf(
  body: Omit<Shared, 'logprobs'>,
  model: ServedModel,
): SamplingOptions & Pick<GenerateRequest, 'stop' | 'ignoreEos'> {
  return {
    ...given('temperature', body.temperature),
    ...given('topP', body.top_p),
    // vLLM's -1 keeps all tokens, as 0 does here.
    ...given('topK', body.top_k === null ? null : body.top_k && Math.max(0, body.top_k)),
    ...given('minP', body.min_p),
    ...given('repetitionPenalty', body.repetition_penalty),
    ...given('presencePenalty', body.presence_penalty),
    ...given('frequencyPenalty', body.frequency_penalty),
    ...given('logitBias', checkBias(body.logit_bias, model)),
    ...given('seed', body.seed),
    ...given('stop', typeof body.stop === 'string' ? [body.stop] : body.stop),
    ...given('ignoreEos', body.ignore_eos),
  };
}

function given<Name extends string, T>(
  name: Name,
  value: T | null | undefined,
): { [K in Name]?: NonNullable<T> } {
  return (value === null || value === undefined ? {} : { [name]: value }) as { [K in Name]?: NonNullable<T> };
}

function checkBias(
  biases: Shared['logit_bias'],
  { engine: { info } }: ServedModel,
): Record<number, number> | null | undefined {
  const { vocab_size: known } = info.config;
  const wrong = Object.keys(biases ?? {}).find((id) => Number(id) >= known);
  if (wrong === undefined) return biases as Record<number, number>;
  throw badRequest(
    `Invalid key in 'logit_bias': ${wrong}. The model knows the tokens 0 to ${known - 1}.`,
    'logit_bias',
    'invalid_value',
  );
}
