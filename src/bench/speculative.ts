/**
 * What drafts of a model's own MTP module are worth: the model of `orders-model.ts` through the engine's API with and without them, in
 * turn, and what a second row and the module cost beside a step.
 */
import type { Engine } from '../infer/engine.js';
import { openEngine } from '../infer/open-engine.js';
import { openRunner } from '../infer/open-runner.js';
import type { ModelRunner, StepBatch } from '../infer/runner.js';
import { countParameters } from '../model/parameters.js';
import { Random } from '../numerics/random.js';
import type { Ui } from '../report/ui.js';
import { parseModelConfig } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { Check } from './infer-checks.js';
import { requireAddon } from './kernels.js';
import { describeMachine, type Machine } from './machine.js';
import { median, summarise, type Timing } from './measure.js';
import { ORDERS_MODEL, ordersDocument, ordersModel } from './orders-model.js';

export interface SpeculativeOptions {
  threads?: number;
  /** Formats to measure; all by default. */
  weights?: readonly WeightFormat[];
  /** Times that everything is measured, in turn. */
  rounds: number;
}

export interface SpeculativeResult {
  weights: WeightFormat;
  /** Seconds per token of greedy continuations, each from the first token to the last. */
  plain: Timing;
  drafted: Timing;
  speedup: number;
  /** Share of the drafts that were right, and of all tokens that were drafted. */
  acceptance: number;
  draftedShare: number;
  /** Whether both gave the same tokens. */
  same: boolean;
  /** Seconds of a step with one row and with two, and of the module with two. */
  costs: { step: number; twoRows: number; module: number };
}

export interface SpeculativeReport {
  machine: Machine;
  model: string;
  threads: number;
  parameters: { total: number; active: number };
  results: SpeculativeResult[];
  checks: Check[];
}

const FORMATS: readonly WeightFormat[] = ['bf16', 'int8', 'q4'];

/** Least acceptance and speed-up that the project asks for. */
const ACCEPTANCE_TARGET = 0.8;
const SPEEDUP_TARGET = 1.5;

/** Prompts: the first records of documents that the training did not see. */
const PROMPTS = 4;
const PROMPT_SEED = 2;
/** Tokens of a continuation: with the prompt, less than the training's sequences. */
const LENGTH = 320;
/** Measurements of each cost, and positions that they stand at. */
const COST_REPEATS = 100;
const COST_CONTEXT = 128;

/** @throws UserError without the addon, or when the model cannot be made */
export async function benchSpeculative(options: SpeculativeOptions, ui: Ui): Promise<SpeculativeReport> {
  const addon = requireAddon();
  const { isa, threads: cpus } = addon.info();
  const threads = options.threads ?? cpus;
  const folder = await ordersModel(ui);
  const results: SpeculativeResult[] = [];
  for (const weights of options.weights ?? FORMATS) {
    results.push(await measure(folder, weights, threads, options.rounds, ui));
  }
  const { total, active } = countParameters(parseModelConfig(ORDERS_MODEL));
  return {
    machine: describeMachine(addon, isa),
    model: 'orders',
    threads,
    parameters: { total, active },
    results,
    checks: results.flatMap(checksOf),
  };
}

function checksOf({ weights, acceptance, speedup }: SpeculativeResult): Check[] {
  const check = (name: string, value: number, target: number): Check => ({
    name: `${weights}: ${name}`,
    value,
    target,
    met: value >= target,
  });
  return [
    check('acceptance of drafts', acceptance, ACCEPTANCE_TARGET),
    check('tokens/s with drafts over those without', speedup, SPEEDUP_TARGET),
  ];
}

async function measure(
  folder: string,
  weights: WeightFormat,
  threads: number,
  rounds: number,
  ui: Ui,
): Promise<SpeculativeResult> {
  const open = async (speculative: boolean) =>
    new Side(await openEngine(folder, { weights, threads, speculative, maxBatch: 1 }));
  const sides = [await open(false), await open(true)] as const;
  const progress = ui.progress(`bench infer, drafts, ${weights}`);
  const prompts = heldOut();
  // The first round warms up: the engine learns what drafts cost.
  for (let round = 0; round <= rounds; round++) {
    for (const [i, prompt] of prompts.entries()) {
      progress.update({ done: round * PROMPTS + i, total: (rounds + 1) * PROMPTS });
      for (const side of (round + i) % 2 === 0 ? sides : sides.toReversed())
        await side.take(prompt, round > 0);
    }
  }
  progress.end();
  const [plain, drafted] = sides;
  for (const { engine } of sides) await engine.close();
  const [a, b] = [summarise(plain.seconds), summarise(drafted.seconds)];
  return {
    weights,
    plain: a,
    drafted: b,
    speedup: a.median / b.median,
    acceptance: drafted.acceptedTokens / Math.max(1, drafted.draftedTokens),
    draftedShare: drafted.draftedTokens / drafted.tokens,
    same: plain.ids.join() === drafted.ids.join(),
    costs: stepCosts(folder, weights, threads),
  };
}

/** The first record of each document. */
function heldOut(): string[] {
  const random = new Random(PROMPT_SEED);
  return Array.from({ length: PROMPTS }, () => `${ordersDocument(random).split('\n')[0]!}\n`);
}

/** An engine and what it did. */
class Side {
  /** Seconds per token of each continuation. */
  readonly seconds: number[] = [];
  readonly ids: number[] = [];
  tokens = 0;
  draftedTokens = 0;
  acceptedTokens = 0;

  constructor(readonly engine: Engine) {}

  async take(prompt: string, counts: boolean): Promise<void> {
    const request = { prompt, maxTokens: LENGTH, temperature: 0, ignoreEos: true };
    for await (const event of this.engine.generate(request)) {
      if (event.type === 'text') this.ids.push(...event.ids);
      else if (event.type === 'done' && counts) {
        const { completionTokens, decodeSeconds, draftedTokens, acceptedTokens } = event.usage;
        this.seconds.push(decodeSeconds / (completionTokens - 1));
        this.tokens += completionTokens;
        this.draftedTokens += draftedTokens;
        this.acceptedTokens += acceptedTokens;
      }
    }
  }
}

/** Medians of the runner's calls on made-up tokens. */
function stepCosts(folder: string, weights: WeightFormat, threads: number): SpeculativeResult['costs'] {
  const runner = openRunner(folder, { weights, threads, cacheTokens: 2 * COST_CONTEXT });
  runner.step(rowsAt(runner, 0, COST_CONTEXT));
  const taken = { step: [] as number[], twoRows: [] as number[], module: [] as number[] };
  for (let i = 0; i < COST_REPEATS; i++) {
    const at = COST_CONTEXT + (i % (COST_CONTEXT - 1));
    const [one, two] = [rowsAt(runner, at, 1), rowsAt(runner, at, 2)];
    const start = performance.now();
    runner.step(one);
    const between = performance.now();
    const { hidden } = runner.step(two);
    const behind = performance.now();
    runner.draft({ ...two, wanted: Int32Array.of(1) }, hidden);
    taken.step.push(between - start);
    taken.twoRows.push(behind - between);
    taken.module.push(performance.now() - behind);
  }
  runner.close();
  const of = (milliseconds: readonly number[]) => median(milliseconds) / 1000;
  return { step: of(taken.step), twoRows: of(taken.twoRows), module: of(taken.module) };
}

/** `count` rows of one sequence from position `from` on, all with logits. */
function rowsAt(runner: ModelRunner, from: number, count: number): StepBatch {
  const { cache, config } = runner;
  const rows = Int32Array.from({ length: count }, (_, i) => i);
  return {
    tokens: rows.map((i) => (7919 * (from + i)) % config.vocab_size),
    bounds: Int32Array.of(0, count),
    lengths: [from],
    pages: [Int32Array.from({ length: Math.ceil((from + count) / cache.pageTokens) }, (_, page) => page)],
    wanted: rows,
  };
}
