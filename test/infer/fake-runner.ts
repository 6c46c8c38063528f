import type { ModelRunner, StepBatch, StepResult } from '../../src/infer/runner.js';
import { Random } from '../../src/numerics/random.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { Tensor } from '../../src/tensor/tensor.js';

export interface FakeOptions {
  vocabulary?: number;
  pages?: number;
  pageTokens?: number;
  drafts?: boolean;
  /** Standard deviation of the logits, and of what the drafts' logits are wrong by. */
  spread?: number;
  noise?: number;
  /** Tokens that the logits depend on, the last ones; all where absent. */
  memory?: number;
}

/**
 * A language model whose logits are random numbers seeded by the whole context, which it reads from its pages: a wrong, lost
 * or shared page gives other tokens. Its MTP module knows the main model's logits up to noise, and checks that its own
 * cache layer holds at each position the token after it.
 */
export class FakeRunner implements ModelRunner {
  readonly config;
  readonly weightFormat = 'fp32';
  readonly weightBytes = 0;
  residentWeightBytes = (): number => 0;
  readonly cache;
  readonly draftDepth;
  /** Tokens by slot, in the main layer and in the MTP module's. */
  readonly main: Int32Array;
  private readonly mtp: Int32Array;
  /** Rows of each step, for tests of the schedule. */
  readonly steps: { rows: number; sequences: number }[] = [];
  closed = false;
  private readonly computed = new Map<string, Float32Array>();

  constructor(private readonly options: FakeOptions = {}) {
    const { vocabulary = 16, pages = 64, pageTokens = 4, drafts = false } = options;
    this.config = { ...parseModelConfig(MODEL_PRESETS.tiny), vocab_size: vocabulary };
    this.cache = { format: 'fp32' as const, pageTokens, pages, bytesPerToken: 4 };
    this.draftDepth = drafts ? 1 : 0;
    this.main = new Int32Array(pages * pageTokens).fill(-1);
    this.mtp = new Int32Array(pages * pageTokens).fill(-1);
  }

  step(batch: StepBatch): StepResult {
    this.steps.push({ rows: batch.tokens.length, sequences: batch.lengths.length });
    return this.run(batch, (position, slots, token) => {
      this.main[slots(position)] = token;
      return this.seeds(position, slots).main;
    });
  }

  draft(batch: StepBatch, hidden: Tensor): StepResult {
    return this.run(
      batch,
      (position, slots, token, row) => {
        const { main } = this.seeds(position, slots);
        if (hidden.data[row] !== main % 65_521) throw new Error(`row ${row} has another row's hidden state`);
        this.mtp[slots(position)] = token;
        for (let p = 0; p < position; p++) {
          const [has, next] = [this.mtp[slots(p)], this.main[slots(p + 1)]];
          if (has !== next) throw new Error(`the MTP layer holds token ${has} at ${p}, ${next} follows`);
        }
        return this.extended(position, slots, token);
      },
      this.options.noise ?? 0,
    );
  }

  copyPage(from: number, to: number): void {
    const { pageTokens } = this.cache;
    for (const layer of [this.main, this.mtp])
      layer.copyWithin(to * pageTokens, from * pageTokens, (from + 1) * pageTokens);
  }

  close(): void {
    this.closed = true;
  }

  /** Logits after a context. */
  logits(context: readonly number[]): Float32Array {
    return this.logitsOf(hash(this.recent(context)), 0).slice();
  }

  private run(
    batch: StepBatch,
    row: (position: number, slots: (p: number) => number, token: number, row: number) => number,
    noise = 0,
  ): StepResult {
    const { pageTokens } = this.cache;
    const seeds: number[] = [];
    batch.lengths.forEach((length, s) => {
      const pages = batch.pages[s]!;
      const slots = (p: number) => pages[Math.floor(p / pageTokens)]! * pageTokens + (p % pageTokens);
      for (let r = batch.bounds[s]!; r < batch.bounds[s + 1]!; r++) {
        seeds.push(row(length + r - batch.bounds[s]!, slots, batch.tokens[r]!, r));
      }
    });
    const logits = Array.from(batch.wanted, (r) => [...this.logitsOf(seeds[r]!, noise)]).flat();
    const shape = [batch.wanted.length, this.config.vocab_size];
    return {
      logits: new Tensor(shape, 'f32', Float32Array.from(logits)),
      hidden: Tensor.f32(
        [seeds.length, 1],
        seeds.map((seed) => seed % 65_521),
      ),
    };
  }

  private seeds(position: number, slots: (p: number) => number): { main: number } {
    const context = Array.from({ length: position + 1 }, (_, p) => this.main[slots(p)]!);
    return { main: hash(this.recent(context)) };
  }

  /** Seed of the context up to `position` and one token more. */
  private extended(position: number, slots: (p: number) => number, token: number): number {
    const context = Array.from({ length: position + 1 }, (_, p) => this.main[slots(p)]!);
    return hash(this.recent([...context, token]));
  }

  private recent(context: readonly number[]): readonly number[] {
    return context.slice(-(this.options.memory ?? context.length));
  }

  private logitsOf(seed: number, noise: number): Float32Array {
    const key = `${seed} ${noise}`;
    const known = this.computed.get(key);
    if (known) return known;
    const { spread = 2 } = this.options;
    const [random, error] = [new Random(seed), new Random(seed + 1)];
    const logits = Float32Array.from(
      { length: this.config.vocab_size },
      () => spread * random.normal() + noise * error.normal(),
    );
    this.computed.set(key, logits);
    return logits;
  }
}

const hash = (tokens: readonly number[]): number =>
  tokens.reduce((h, token) => (Math.imul(h, 31) + token + 7) >>> 0, 17);
