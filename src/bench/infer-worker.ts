/**
 * fathom's own side of `bench infer`, a process that is driven like bench/peers/llama_cpp.cc: the runner in a bare loop
 * (`runner`), or the engine through its JavaScript API (`engine`).
 *
 *   node infer-worker.js runner|engine FOLDER weights=int8 cache=bf16 threads=2 ctx=8192 seqs=8
 */
import { createInterface } from 'node:readline';
import type { Engine } from '../infer/engine.js';
import { openEngine } from '../infer/open-engine.js';
import { openRunner } from '../infer/open-runner.js';
import type { ModelRunner } from '../infer/runner.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';

interface Settings {
  weights: WeightFormat;
  cache: CacheFormat;
  threads: number;
  contextTokens: number;
  sequences: number;
}

/** What can be asked; every list is seconds per step but `greedy`'s, which are ids. */
interface Measured {
  prefill(tokens: number): Promise<number[]> | number[];
  decode(length: number, steps: number): Promise<number[]> | number[];
  batch(sequences: number, length: number, steps: number): Promise<number[]> | number[];
  greedy(steps: number, prompt: readonly number[]): Promise<number[]> | number[];
}

const seconds = () => performance.now() / 1000;

/** Tokens of a step of prefill. */
const CHUNK = 512;

/** Token of a sequence at a position; the same as in the peers' programs. */
const tokenAt = (vocabulary: number, position: number, sequence = 0): number =>
  5 + (((position + 31 * sequence) * 7919) % (vocabulary - 5));

/** Steps of the runner with nothing around them; several sequences share its pages equally, a single one has them all. */
class BareLoop implements Measured {
  private held = 0;
  private readonly pagesEach: number;

  constructor(
    private readonly runner: ModelRunner,
    sequences: number,
  ) {
    this.pagesEach = Math.floor(runner.cache.pages / sequences);
  }

  prefill(tokens: number): number[] {
    const start = seconds();
    this.feed(0, 0, tokens);
    this.held = tokens;
    return [seconds() - start];
  }

  decode(length: number, steps: number): number[] {
    // What a shorter or longer call before left there is the same sequence's beginning.
    if (this.held < length) this.feed(0, this.held, length - this.held);
    this.held = length;
    return this.steps(1, length, steps);
  }

  batch(sequences: number, length: number, steps: number): number[] {
    for (let s = 0; s < sequences; s++) this.feed(s, 0, length);
    this.held = 0;
    return this.steps(sequences, length, steps);
  }

  greedy(steps: number, prompt: readonly number[]): number[] {
    this.held = 0;
    const ids: number[] = [];
    let logits = this.step([0], 0, prompt);
    for (;;) {
      ids.push(indexOfLargest(logits));
      if (ids.length === steps) return ids;
      logits = this.step([0], prompt.length + ids.length - 1, ids.slice(-1));
    }
  }

  private steps(sequences: number, length: number, count: number): number[] {
    const all = Array.from({ length: sequences }, (_, s) => s);
    return Array.from({ length: count }, (_, i) => {
      const tokens = all.map((s) => this.token(length + i, s));
      const start = seconds();
      this.step(all, length + i, tokens);
      return seconds() - start;
    });
  }

  private feed(sequence: number, first: number, count: number): void {
    for (let at = 0; at < count; at += CHUNK) {
      const tokens = Array.from({ length: Math.min(CHUNK, count - at) }, (_, i) =>
        this.token(first + at + i, sequence),
      );
      this.step([sequence], first + at, tokens);
    }
  }

  /** One step in which every sequence holds `length` tokens and gets as many new ones; logits of each one's last. */
  private step(sequences: readonly number[], length: number, tokens: readonly number[]): Float32Array {
    const each = tokens.length / sequences.length;
    const pages = Math.ceil((length + each) / this.runner.cache.pageTokens);
    const { logits } = this.runner.step({
      tokens: Int32Array.from(tokens),
      bounds: Int32Array.from({ length: sequences.length + 1 }, (_, s) => s * each),
      lengths: sequences.map(() => length),
      pages: sequences.map((s) => Int32Array.from({ length: pages }, (_, page) => s * this.pagesEach + page)),
      wanted: Int32Array.from(sequences, (_, s) => (s + 1) * each - 1),
    });
    return logits.data as Float32Array;
  }

  private token(position: number, sequence: number): number {
    return tokenAt(this.runner.config.vocab_size, position, sequence);
  }
}

function indexOfLargest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** The engine as a user calls it; context that a request shares with the one before is found in the cache. */
class ThroughEngine implements Measured {
  constructor(private readonly engine: Engine) {}

  async prefill(tokens: number): Promise<number[]> {
    // Another first token each time, so that nothing of the prompt is cached.
    this.fresh++;
    const { first } = await this.request(this.prompt(tokens, this.fresh), 1);
    return [first];
  }

  async decode(length: number, steps: number): Promise<number[]> {
    return (await this.request(this.prompt(length, 0), steps + 1)).times.slice(0, steps);
  }

  async batch(sequences: number, length: number, steps: number): Promise<number[]> {
    const start = seconds();
    const prompts = Array.from({ length: sequences }, (_, s) => this.prompt(length, s));
    await Promise.all(prompts.map((prompt) => this.request(prompt, steps)));
    return Array.from({ length: steps }, () => (seconds() - start) / steps);
  }

  async greedy(steps: number, prompt: readonly number[]): Promise<number[]> {
    return (await this.request(prompt, steps)).ids;
  }

  private fresh = 0;

  private prompt(length: number, sequence: number): number[] {
    const vocabulary = this.engine.info.config.vocab_size;
    return Array.from({ length }, (_, i) => tokenAt(vocabulary, i, sequence));
  }

  /** Greedy tokens, the time to the first, and those from one event to the next, per token. */
  private async request(
    prompt: readonly number[],
    maxTokens: number,
  ): Promise<{ ids: number[]; first: number; times: number[] }> {
    const ids: number[] = [];
    const times: number[] = [];
    const start = seconds();
    let [first, before] = [0, start];
    for await (const event of this.engine.generate({ prompt, maxTokens, temperature: 0, ignoreEos: true })) {
      if (event.type !== 'text' || event.ids.length === 0) continue;
      const now = seconds();
      if (ids.length === 0) first = now - start;
      else for (const _ of event.ids) times.push((now - before) / event.ids.length);
      before = now;
      ids.push(...event.ids);
    }
    return { ids, first, times };
  }
}

async function open(kind: string, folder: string, settings: Settings): Promise<Measured> {
  const { weights, cache, threads, contextTokens, sequences } = settings;
  if (kind === 'runner') {
    const runner = openRunner(folder, {
      weights,
      cache,
      threads,
      cacheTokens: contextTokens,
      speculative: false,
    });
    return new BareLoop(runner, sequences);
  }
  const cacheTokens = 2 * contextTokens;
  const common = {
    weights,
    cache,
    threads,
    contextTokens,
    cacheTokens,
    maxBatch: sequences,
    speculative: false,
  };
  return new ThroughEngine(await openEngine(folder, common));
}

async function answer(measured: Measured, line: string): Promise<number[]> {
  const [command, ...operands] = line.split(' ');
  const [a, b, c] = operands.map(Number) as [number, number, number];
  switch (command) {
    case 'prefill':
      return measured.prefill(a);
    case 'decode':
      return measured.decode(a, b);
    case 'batch':
      return measured.batch(a, b, c);
    default:
      return measured.greedy(a, operands[1]!.split(',').map(Number));
  }
}

const say = (object: object) => process.stdout.write(`${JSON.stringify(object)}\n`);

async function main([kind, folder, ...settings]: string[]): Promise<void> {
  const given = Object.fromEntries(settings.map((setting) => setting.split('='))) as Record<string, string>;
  const start = seconds();
  const measured = await open(kind!, folder!, {
    weights: given.weights as WeightFormat,
    cache: given.cache as CacheFormat,
    threads: Number(given.threads),
    contextTokens: Number(given.ctx),
    sequences: Number(given.seqs),
  });
  say({ loadSeconds: seconds() - start });
  for await (const line of createInterface({ input: process.stdin })) {
    const values = await answer(measured, line);
    say({ values, residentBytes: process.resourceUsage().maxRSS * 1024 });
  }
  process.exit(0);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  // One line: whoever started this shows the last one.
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
}
