import { Agent, request } from 'node:http';

/** What one request took and gave. */
export interface Sample {
  /** From sending to the first token. */
  firstTokenSeconds: number;
  /** Mean time between two tokens after it; NaN of fewer than two. */
  tokenSeconds: number;
  tokens: number;
}

export interface Load {
  samples: Sample[];
  /** What went wrong, by how often. */
  errors: Record<string, number>;
  /** From the first request to the end of the last one. */
  seconds: number;
}

/** One request from its start to its end. */
export type Run = (index: number) => Promise<Sample>;

/** Keeps `streams` requests at work for so many seconds, then lets those at work end. */
export async function keepBusy(run: Run, streams: number, seconds: number): Promise<Load> {
  const started = performance.now();
  const load: Load = { samples: [], errors: {}, seconds: 0 };
  let next = 0;
  const stream = async () => {
    while (performance.now() - started < seconds * 1000) {
      try {
        load.samples.push(await run(next++));
      } catch (error) {
        const { message } = error as Error;
        load.errors[message] = (load.errors[message] ?? 0) + 1;
      }
    }
  };
  await Promise.all(Array.from({ length: streams }, stream));
  load.seconds = (performance.now() - started) / 1000;
  return load;
}

/** Tokens over all samples, per second of the whole load. */
export const throughput = ({ samples, seconds }: Load): number =>
  samples.reduce((n, { tokens }) => n + tokens, 0) / seconds;

/** Times of the events of one request. */
export class Stopwatch {
  private readonly started = performance.now();
  private first = 0;
  private last = 0;

  event(): void {
    this.last = performance.now();
    this.first ||= this.last;
  }

  sample(tokens: number): Sample {
    return {
      firstTokenSeconds: (this.first - this.started) / 1000,
      tokenSeconds: tokens > 1 ? (this.last - this.first) / 1000 / (tokens - 1) : Number.NaN,
      tokens,
    };
  }
}

/** Posts streaming completions; no more is read of the events than is measured, because the client shares the machine. */
export class StreamingClient {
  private readonly agent = new Agent({ keepAlive: true });

  constructor(private readonly url: string) {}

  /** @param body of `/v1/completions`, without `stream` */
  complete(body: object): Promise<Sample> {
    const text = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
    const headers = { 'content-type': 'application/json' };
    const watch = new Stopwatch();
    return new Promise((resolve, reject) => {
      const sent = request(
        `${this.url}/v1/completions`,
        { method: 'POST', headers, agent: this.agent },
        (response) => {
          let tail = '';
          response.setEncoding('utf8');
          response.on('data', (piece: string) => {
            watch.event();
            tail = (tail + piece).slice(-TAIL);
          });
          response.on('error', reject);
          response.on('end', () => {
            const tokens = Number(/"completion_tokens":(\d+)/.exec(tail)?.[1]);
            if (response.statusCode === 200 && tail.endsWith('data: [DONE]\n\n'))
              resolve(watch.sample(tokens));
            else reject(new Error(`status ${response.statusCode}: ${withoutNames(tail).trim()}`));
          });
        },
      );
      sent.on('error', reject);
      sent.end(text);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

/** Characters that the last events take: reason, usage, end. */
const TAIL = 1000;

/** The smallest value that at least the given share of all values does not exceed; NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** Without what is different in each answer, so that failures of one kind count as one. */
const withoutNames = (answer: string): string => answer.replaceAll(/"(id|created)":("[^"]*"|\d+),?/g, '');
