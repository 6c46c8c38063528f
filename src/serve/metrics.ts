import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Engine, EngineStats, ExpertBalance, WeightPaging } from '../infer/engine.js';
import type { Job, JobEvent } from './generation.js';

/** Upper bounds of buckets, seconds. Assumed: from a small model's prompt in the cache to a long prompt on a busy machine. */
const FIRST_TOKEN_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
/** From small models alone to large ones in a full batch. */
const PER_TOKEN_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const REQUEST_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

type Figures = Omit<EngineStats, 'experts' | 'expertRows'> & WeightPaging;

/** What the engine counts, by name and explanation. */
const ENGINE_COUNTERS: Partial<Record<keyof Figures, [name: string, help: string]>> = {
  steps: ['fathom_engine_steps_total', 'Steps of the model'],
  batchedSequences: [
    'fathom_batched_sequences_total',
    'Sequences summed over steps; over the steps: the mean batch size',
  ],
  promptTokens: ['fathom_prompt_tokens_total', 'Tokens of prompts'],
  cachedTokens: ['fathom_cached_tokens_total', 'Tokens of prompts that were found in the cache'],
  generatedTokens: ['fathom_generated_tokens_total', 'Tokens generated'],
  draftedTokens: ['fathom_drafted_tokens_total', 'Tokens drafted by the MTP module'],
  pagesRead: ['fathom_pages_read_total', 'Pages of files that the process waited for'],
  acceptedTokens: ['fathom_accepted_tokens_total', 'Drafted tokens that the model accepted'],
};

const ENGINE_GAUGES: Partial<Record<keyof Figures, [name: string, help: string]>> = {
  running: ['fathom_requests_running', 'Sequences in the batch'],
  waiting: ['fathom_requests_waiting', 'Sequences that wait'],
  cachePages: ['fathom_cache_pages', 'Pages of the latent cache'],
  residentWeightBytes: ['fathom_weight_resident_bytes', 'Bytes of weights that are in memory now'],
  cachePagesUsed: ['fathom_cache_pages_used', 'Pages of the latent cache that hold something'],
};

/** Of experts over ranks: rows of the busiest rank over those of a mean one, and what placing them by load has done. */
const BALANCE_GAUGES: [name: string, help: string, of: (balance: ExpertBalance) => number][] = [
  [
    'fathom_expert_imbalance',
    'Rows of experts of the busiest rank over those of a mean one, since experts were placed last',
    ({ imbalance }) => imbalance,
  ],
  [
    'fathom_expert_imbalance_before',
    'The same between the last two placements of experts by load; 0 before the first one',
    ({ placements }) => placements.at(-1)?.before ?? 0,
  ],
  ['fathom_expert_placements', 'Placements of experts by load', ({ placements }) => placements.length],
  [
    'fathom_experts_moved',
    'Experts that ranks loaded for placements by load',
    ({ placements }) => placements.reduce((sum, { moved }) => sum + moved, 0),
  ],
];

/** Figures of a server for Prometheus: its own, its engine's, and those of the process. */
export class Metrics {
  private readonly registry = new Registry();
  private readonly firstToken = this.histogram(
    'fathom_time_to_first_token_seconds',
    'From the arrival of a request to its first token',
    FIRST_TOKEN_BUCKETS,
  );
  private readonly perToken = this.histogram(
    'fathom_time_per_output_token_seconds',
    'Mean time between two tokens of a sequence, the first aside',
    PER_TOKEN_BUCKETS,
  );
  private readonly duration = new Histogram({
    name: 'fathom_request_duration_seconds',
    help: 'From the arrival of a request to the end of its answer',
    buckets: REQUEST_BUCKETS,
    labelNames: ['endpoint'] as const,
    registers: [this.registry],
  });
  private readonly requests = new Counter({
    name: 'fathom_requests_total',
    help: 'Requests answered; status 499: the client went away',
    labelNames: ['endpoint', 'status'] as const,
    registers: [this.registry],
  });
  private readonly counters;
  private readonly gauges;
  private readonly balance: [Gauge, (balance: ExpertBalance) => number][];

  constructor(private readonly engine: Engine) {
    collectDefaultMetrics({ register: this.registry });
    const registers = [this.registry];
    this.counters = build(ENGINE_COUNTERS, ([name, help]) => new Counter({ name, help, registers }));
    this.gauges = build(ENGINE_GAUGES, ([name, help]) => new Gauge({ name, help, registers }));
    const spread = engine.info.ranks ? BALANCE_GAUGES : [];
    this.balance = spread.map(([name, help, of]) => [new Gauge({ name, help, registers }), of]);
    this.describe();
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** All figures in the text format, the engine's as they are now. */
  async text(): Promise<string> {
    const { experts, expertRows: _, ...stats } = await this.engine.stats();
    const figures = { ...stats, ...(await this.engine.paging()) };
    if (experts) for (const [gauge, of] of this.balance) gauge.set(of(experts));
    for (const [field, gauge] of this.gauges) gauge.set(figures[field]);
    for (const [field, counter] of this.counters) {
      counter.reset();
      counter.inc(figures[field]);
    }
    return this.registry.metrics();
  }

  /** Counts an answer. */
  answered(endpoint: string, status: number, seconds: number): void {
    this.requests.inc({ endpoint, status });
    this.duration.observe({ endpoint }, seconds);
  }

  /**
   * Passes events on and observes when they come.
   * @param arrivedSeconds when the request came, on the clock of `performance.now()`
   */
  async *measured(events: AsyncIterable<JobEvent>, arrivedSeconds: number): AsyncGenerator<JobEvent> {
    const firsts = new Map<Job, number>();
    for await (const item of events) {
      const now = performance.now() / 1000;
      const first = firsts.get(item.job);
      if (first === undefined) {
        firsts.set(item.job, now);
        this.firstToken.observe(now - arrivedSeconds);
      }
      if (item.event.type === 'done' && first !== undefined) {
        const gaps = item.event.usage.completionTokens - 1;
        if (gaps > 0) this.perToken.observe((now - first) / gaps);
      }
      yield item;
    }
  }

  private histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: [this.registry] });
  }

  /** What does not change. */
  private describe(): void {
    const { info } = this.engine;
    const registers = [this.registry];
    const labels = {
      model: info.name,
      weights: info.weightFormat,
      cache: info.cacheFormat,
      backend: info.backend,
    };
    const about = { name: 'fathom_info', help: 'What is served and how', labelNames: Object.keys(labels) };
    new Gauge({ ...about, registers }).set(labels, 1);
    const bytes = { name: 'fathom_cache_bytes_per_token', help: 'Bytes of the latent cache for a token' };
    new Gauge({ ...bytes, registers }).set(info.cacheBytesPerToken);
    const weights = { name: 'fathom_weight_bytes', help: 'Bytes of all weights as held' };
    new Gauge({ ...weights, registers }).set(info.weightBytes);
  }
}

function build<T>(
  names: Partial<Record<keyof Figures, [name: string, help: string]>>,
  make: (texts: [name: string, help: string]) => T,
): [keyof Figures, T][] {
  return Object.entries(names).map(([field, texts]) => [field as keyof Figures, make(texts)]);
}
