import type { FinishReason, PromptToken, TokenDetail, Usage } from '../infer/engine.js';
import { sendJson } from './errors.js';
import { EventStream } from './event-stream.js';
import type { Exchange } from './exchange.js';
import { collect, generateAll, type Job, type JobEvent, type Output, totalUsage } from './generation.js';
import type { Service } from './service.js';

/** How an endpoint writes choices, whole or in pieces. Made for one request. */
export interface Format {
  /** `object` of a whole answer and of a piece. */
  object: string;
  chunkObject: string;
  /** In front of the id. */
  prefix: string;
  whole(job: Job, output: Output): object;
  /** Pieces of a choice: what comes before its text, some of its text, and its end. */
  opening(job: Job, prompt: readonly PromptToken[] | undefined): object | undefined;
  piece(job: Job, text: string, details: readonly TokenDetail[] | undefined): object;
  closing(job: Job, reason: FinishReason): object;
}

export interface Delivery {
  stream: boolean;
  includeUsage: boolean;
}

/** Generates the jobs and answers with them, as a whole or as a stream. */
export async function answer(
  service: Service,
  exchange: Exchange,
  jobs: readonly Job[],
  format: Format,
  { stream, includeUsage }: Delivery,
): Promise<void> {
  const leave = service.admission.enter(jobs.length);
  try {
    const generated = generateAll(service.model.engine, jobs, exchange.signal);
    const events = service.metrics.measured(generated, exchange.startedSeconds);
    const head = {
      id: `${format.prefix}-${exchange.id}`,
      created: Math.floor(Date.now() / 1000),
      model: service.model.id,
    };
    if (stream) {
      const sender = new Streamer(exchange, service.limits.stallSeconds, format, head, includeUsage);
      await sender.run(events);
    } else {
      const outputs = await collect(events, jobs);
      const choices = jobs.map((job, i) => format.whole(job, outputs[i]!));
      const usage = totalUsage(jobs.map((job, i) => ({ job, usage: outputs[i]!.usage })));
      sendJson(exchange.response, 200, { ...head, object: format.object, choices, usage });
    }
  } finally {
    leave();
  }
}

/** Turns events into chunks of an event stream. */
class Streamer {
  private stream: EventStream | undefined;
  private readonly opened = new Set<Job>();
  private readonly finished: { job: Job; usage: Usage }[] = [];

  constructor(
    private readonly exchange: Exchange,
    private readonly stallSeconds: number,
    private readonly format: Format,
    private readonly head: object,
    private readonly includeUsage: boolean,
  ) {}

  async run(events: AsyncIterable<JobEvent>): Promise<void> {
    for await (const { job, event } of events) {
      await this.open(job, event.type === 'text' ? event.prompt : undefined);
      if (event.type === 'text') {
        if (event.text || event.tokens?.length)
          await this.send(this.format.piece(job, event.text, event.tokens));
      } else {
        this.finished.push({ job, usage: event.usage });
        await this.send(this.format.closing(job, event.reason));
      }
    }
    if (this.includeUsage) await this.sendChunk([], totalUsage(this.finished));
    this.stream?.end();
  }

  /** The first event decides the status: a request that fails before it is answered like any other. */
  private async open(job: Job, prompt: readonly PromptToken[] | undefined): Promise<void> {
    this.stream ??= new EventStream(this.exchange, this.stallSeconds);
    if (this.opened.has(job)) return;
    this.opened.add(job);
    const choice = this.format.opening(job, prompt);
    if (choice) await this.send(choice);
  }

  private send(choice: object): Promise<void> {
    return this.sendChunk([choice], null);
  }

  private async sendChunk(choices: object[], usage: object | null): Promise<void> {
    const chunk = { ...this.head, object: this.format.chunkObject, choices };
    await this.stream!.send(this.includeUsage ? { ...chunk, usage } : chunk);
  }
}
