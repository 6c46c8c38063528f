import { UserError } from '../errors.js';
import type { ResponseFormat, TokenDetail } from '../infer/engine.js';
import type { ChatMessage } from '../text/chat-template.js';
import { answer, type Format } from './answer.js';
import { badRequest } from './errors.js';
import type { Exchange } from './exchange.js';
import type { Job } from './generation.js';
import { contentLogprobs } from './logprobs.js';
import { type ServedModel, tokenLimit } from './model.js';
import { samplingOf } from './sampling.js';
import { type ChatRequest, chatSchema, type RequestMessage } from './schema.js';
import type { Service } from './service.js';
import { validate } from './validation.js';

/** `POST /v1/chat/completions`. */
export async function chat(service: Service, exchange: Exchange, given: object): Promise<void> {
  const body = validate(chatSchema, given);
  service.checkModel(body.model);
  checkCombination(body);
  const prompt = await encodeConversation(body, service.model);
  await answer(service, exchange, jobsOf(body, prompt, service.model), formatOf(body.logprobs ?? false), {
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
  });
}

function checkCombination(body: ChatRequest): void {
  if (body.stream_options && !body.stream)
    throw badRequest("The 'stream_options' parameter is only allowed with 'stream'.", 'stream_options');
  if (typeof body.top_logprobs === 'number' && !body.logprobs)
    throw badRequest("The 'top_logprobs' parameter is only allowed with 'logprobs'.", 'top_logprobs');
}

async function encodeConversation(body: ChatRequest, { prompts }: ServedModel): Promise<number[]> {
  const messages = body.messages.map(templateMessage);
  // Templates refuse conversations that their model cannot take, such as two turns of the same speaker.
  const ids = await prompts.conversation(messages, body.chat_template_kwargs ?? {}).catch((error) => {
    throw error instanceof UserError ? badRequest(error.message, 'messages', 'invalid_value') : error;
  });
  if (ids.length > 0) return ids;
  throw badRequest("'messages' have no text.", 'messages', 'invalid_value');
}

function templateMessage({ role, content, name, ...more }: RequestMessage): ChatMessage {
  const reasoning = 'reasoning_content' in more ? more.reasoning_content : undefined;
  return {
    role: role === 'developer' ? 'system' : role,
    content: typeof content === 'string' ? content : content.map(({ text }) => text).join(''),
    ...(name ? { name } : {}),
    ...(reasoning ? { reasoning_content: reasoning } : {}),
  };
}

/** `n` alternatives; with a seed, each has one of its own. */
function jobsOf(body: ChatRequest, prompt: readonly number[], model: ServedModel): Job[] {
  const sampling = samplingOf(body, model);
  const wanted = body.max_completion_tokens ?? body.max_tokens ?? undefined;
  const maxTokens = tokenLimit(model, prompt, wanted, 'messages');
  return Array.from({ length: body.n ?? 1 }, (_, alternative) => ({
    index: alternative,
    alternative,
    request: {
      ...sampling,
      ...(sampling.seed === undefined ? {} : { seed: sampling.seed + alternative }),
      ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}),
      ...(body.response_format ? { responseFormat: responseFormatOf(body.response_format) } : {}),
      prompt,
      maxTokens,
    },
  }));
}

/** What the answer must look like; a schema that is not given allows any object, as with OpenAI. */
function responseFormatOf(format: NonNullable<ChatRequest['response_format']>): ResponseFormat {
  if (format.type !== 'json_schema') return format;
  const { schema } = format.json_schema;
  return schema === undefined ? { type: 'json_object' } : { type: 'json_schema', schema };
}

function formatOf(logprobs: boolean): Format {
  const detailed = (details: readonly TokenDetail[] | undefined) =>
    logprobs && details ? { content: contentLogprobs(details), refusal: null } : null;
  const piece = (
    job: Job,
    delta: object,
    details: readonly TokenDetail[] | undefined,
    reason: string | null,
  ) => ({ index: job.index, delta, logprobs: detailed(details), finish_reason: reason });
  return {
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    prefix: 'chatcmpl',
    whole: (job, { text, details, reason }) => ({
      index: job.index,
      message: { role: 'assistant', content: text, refusal: null },
      logprobs: detailed(details),
      finish_reason: reason,
    }),
    opening: (job) => piece(job, { role: 'assistant', content: '' }, undefined, null),
    piece: (job, text, details) => piece(job, { content: text }, details, null),
    closing: (job, reason) => piece(job, {}, undefined, reason),
  };
}
