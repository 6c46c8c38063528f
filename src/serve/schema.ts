import { z } from 'zod';

/**
 * What `/v1/completions` and `/v1/chat/completions` take: OpenAI's fields and, where the engine can do more, those that
 * vLLM added (`top_k`, `min_p`, `repetition_penalty`, `ignore_eos`, `chat_template_kwargs`). Null means absent, as there.
 */

/** Alternatives of one prompt at most, as OpenAI limits `n`. */
const MAX_ALTERNATIVES = 128;
/** OpenAI takes 4 stop strings; each costs a search per token, so some more do no harm. */
const MAX_STOPS = 16;
const MAX_STOP_LENGTH = 1000;
/** Most likely tokens per position, as OpenAI limits `top_logprobs`. */
const MAX_TOP = 20;
const MAX_BIASES = 1024;

const text = z.string();
const share = z.number().min(0).max(1);
const penalty = z.number().min(-2).max(2);
const tokenId = z.int().min(0);
const stopText = z.string().min(1).max(MAX_STOP_LENGTH);

/** Fields that both endpoints share. */
const shared = {
  model: text.nullish(),
  max_tokens: z.int().min(0).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: share.nullish(),
  top_k: z.int().min(-1).nullish(),
  min_p: share.nullish(),
  repetition_penalty: z.number().positive().max(10).nullish(),
  presence_penalty: penalty.nullish(),
  frequency_penalty: penalty.nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,9}$/), z.number().min(-100).max(100))
    .refine((biases) => Object.keys(biases).length <= MAX_BIASES, `at most ${MAX_BIASES} tokens`)
    .nullish(),
  seed: z.int().nullish(),
  stop: z.union([stopText, z.array(stopText).max(MAX_STOPS)]).nullish(),
  n: z.int().min(1).max(MAX_ALTERNATIVES).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
    .nullish(),
  ignore_eos: z.boolean().nullish(),
  // Taken and without effect here.
  user: text.nullish(),
};

export const completionSchema = z.strictObject({
  ...shared,
  prompt: z.union([
    text,
    z.array(text).min(1),
    z.array(tokenId).min(1),
    z.array(z.array(tokenId).min(1)).min(1),
  ]),
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(MAX_TOP).nullish(),
  best_of: z.int().min(1).max(MAX_ALTERNATIVES).nullish(),
});
export type CompletionRequest = z.infer<typeof completionSchema>;

const content = z.union([text, z.array(z.strictObject({ type: z.literal('text'), text })).min(1)]);

const messageSchema = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), content, name: text.nullish() }),
  z.strictObject({ role: z.literal('developer'), content, name: text.nullish() }),
  z.strictObject({ role: z.literal('user'), content, name: text.nullish() }),
  z.strictObject({
    role: z.literal('assistant'),
    content,
    name: text.nullish(),
    refusal: z.null().optional(),
    reasoning_content: text.nullish(),
  }),
]);

const responseFormat = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    json_schema: z.strictObject({
      name: text,
      description: text.nullish(),
      schema: z.record(z.string(), z.json()).optional(),
      strict: z.boolean().nullish(),
    }),
  }),
]);

export const chatSchema = z.strictObject({
  ...shared,
  messages: z.array(messageSchema).min(1),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(MAX_TOP).nullish(),
  response_format: responseFormat.nullish(),
  /** Variables for the chat template, such as `thinking` for DeepSeek-V3.1. */
  chat_template_kwargs: z.record(z.string(), z.json()).nullish(),
  // Taken and without effect here.
  metadata: z.record(z.string(), text).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  prompt_cache_key: text.nullish(),
  safety_identifier: text.nullish(),
  service_tier: z.enum(['auto', 'default']).nullish(),
  // What OpenAI has and this server does not, in the one value that asks for nothing.
  functions: z.array(z.never()).nullish(),
  modalities: z.array(z.literal('text')).nullish(),
  store: z.literal(false).nullish(),
  tool_choice: z.enum(['none', 'auto']).nullish(),
  tools: z.array(z.never()).nullish(),
});
export type ChatRequest = z.infer<typeof chatSchema>;
export type RequestMessage = ChatRequest['messages'][number];

/** OpenAI's parameters that this server lacks, by what there is instead. */
export const UNSUPPORTED: ReadonlySet<string> = new Set([
  'audio',
  'best_of',
  'function_call',
  'functions',
  'modalities',
  'moderation',
  'prediction',
  'prompt_cache_retention',
  'reasoning_effort',
  'store',
  'suffix',
  'tool_choice',
  'tools',
  'verbosity',
  'web_search_options',
]);
