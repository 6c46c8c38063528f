import type {
  Engine,
  FinishReason,
  GenerateEvent,
  GenerateRequest,
  PromptToken,
  TokenDetail,
  Usage,
} from '../infer/engine.js';
import { ApiError } from './errors.js';

/** One sequence to generate. */
export interface Job {
  /** Of the choice in the answer. */
  index: number;
  /** Among those of the same prompt; the first one's prompt counts in the usage. */
  alternative: number;
  request: GenerateRequest;
}

export interface JobEvent {
  job: Job;
  event: GenerateEvent;
}

/** What became of a job. */
export interface Output {
  text: string;
  details: TokenDetail[];
  /** Tokens of the prompt, where their log-probabilities were wanted. */
  prompt: readonly PromptToken[];
  reason: FinishReason;
  usage: Usage;
}

/**
 * Generates all jobs together, their events in the order in which they come. Aborting the signal ends all of them.
 * @throws what the engine throws, and the reason of the signal
 */
export async function* generateAll(
  engine: Engine,
  jobs: readonly Job[],
  signal: AbortSignal,
): AsyncGenerator<JobEvent> {
  const started = jobs.map((job) => ({
    job,
    events: start(engine, job, signal)[Symbol.asyncIterator](),
  }));
  try {
    yield* merge(started, signal);
  } finally {
    // Whoever has not ended is told that nobody reads on.
    for (const { events } of started) events.return?.().catch(() => {});
  }
}

interface Source {
  job: Job;
  events: AsyncIterator<GenerateEvent>;
}

/** Events in the order in which they come; whoever was served goes to the end of the line. */
async function* merge(sources: readonly Source[], signal: AbortSignal): AsyncGenerator<JobEvent> {
  const next = (source: Source) => {
    const result = source.events.next().then((result) => ({ source, result }));
    // Where another one ends the race, nobody is left to hear that this one failed as well.
    result.catch(() => {});
    return result;
  };
  const pending = new Map(sources.map((source) => [source, next(source)]));
  while (pending.size > 0) {
    const { source, result } = await Promise.race(pending.values());
    signal.throwIfAborted();
    pending.delete(source);
    if (result.done) continue;
    pending.set(source, next(source));
    if (result.value.type === 'done' && result.value.reason === 'cancelled')
      throw new ApiError(503, 'The server is shutting down.');
    yield { job: source.job, event: result.value };
  }
}

/** A prompt to which nothing is to be added, and of which nothing is to be known, is answered without the engine. */
function start(engine: Engine, { request }: Job, signal: AbortSignal): AsyncIterable<GenerateEvent> {
  return request.maxTokens === 0 && request.promptLogprobs === undefined
    ? nothing(request.prompt.length)
    : engine.generate(request, signal);
}

async function* nothing(promptTokens: number): AsyncGenerator<GenerateEvent> {
  const none = { cachedTokens: 0, completionTokens: 0, draftedTokens: 0, acceptedTokens: 0 };
  const usage = { ...none, promptTokens, firstTokenSeconds: 0, decodeSeconds: 0 };
  yield { type: 'done', reason: 'length', usage };
}

/** Reads all events. @returns what became of each job, in the order of `jobs` */
export async function collect(events: AsyncIterable<JobEvent>, jobs: readonly Job[]): Promise<Output[]> {
  const empty = () => ({ text: [] as string[], details: [] as TokenDetail[], prompt: [] as PromptToken[] });
  const open = new Map(jobs.map((job) => [job, empty()]));
  const done = new Map<Job, Output>();
  for await (const { job, event } of events) {
    const { text, details, prompt } = open.get(job)!;
    if (event.type === 'text') {
      text.push(event.text);
      details.push(...(event.tokens ?? []));
      for (const token of event.prompt ?? []) prompt.push(token);
    } else {
      const { reason, usage } = event;
      done.set(job, { text: text.join(''), details, prompt, reason, usage });
    }
  }
  return jobs.map((job) => done.get(job)!);
}

/** OpenAI's `usage` over all jobs of a request. */
export function totalUsage(parts: readonly { job: Job; usage: Usage }[]): object {
  const sum = (of: (part: (typeof parts)[number]) => number) => parts.reduce((n, part) => n + of(part), 0);
  const once = (of: (usage: Usage) => number) =>
    sum(({ job, usage }) => (job.alternative === 0 ? of(usage) : 0));
  const prompt = once((usage) => usage.promptTokens);
  const completion = sum(({ usage }) => usage.completionTokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: once((usage) => usage.cachedTokens) },
  };
}
