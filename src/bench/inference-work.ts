import { countingBackend } from '../backend/counting.js';
import { timedBackend } from '../backend/timed.js';
import { transformerWeights } from '../infer/memory-weights.js';
import { StoredRunner } from '../infer/model-runner.js';
import type { StepBatch } from '../infer/runner.js';
import { storedModel, type WeightSource } from '../infer/stored-model.js';
import { initialise } from '../model/initialise.js';
import { listParameters } from '../model/parameters.js';
import { Transformer } from '../model/transformer.js';
import type { OpSample, OpWork } from '../plan/ops.js';
import type { ModelConfig } from '../spec/model.js';
import type { Backend } from '../tensor/backend.js';
import type { StoredWeight } from '../tensor/inference.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { Tensor } from '../tensor/tensor.js';
import { type Clock, wallClock } from './measure.js';
import { measureRounds, quiet, withBetween, workOf } from './step-work.js';

/** The operations of a step of inference: prefill of prompts, or decoding of one token a sequence. */

export interface InferenceCase {
  sequences: number;
  /** Tokens of each that the step takes in. */
  tokens: number;
  /** Tokens of each that the cache holds already. */
  context: number;
}

/** Costs of inference are apart from those of training: other kernels, few rows. */
const inferenceKey = (key: string): string => `inference ${key}`;
const renamed = <T extends OpWork>(work: readonly T[]): T[] =>
  work.map((one) => ({ ...one, key: inferenceKey(one.key) }));

/** Counted on a backend that computes nothing. */
export function countInference(one: InferenceCase, model: ModelConfig, like: Backend): OpWork[] {
  const counting = timedBackend(countingBackend(like).backend);
  const step = stepOf(one, new DescribedWeights(model, counting.backend), counting.backend);
  step();
  counting.reset();
  step();
  const work = counting.times().map((time) => workOf(time, one.tokens));
  return renamed(withBetween(work, one.sequences * one.tokens));
}

/** Lower quartiles of `repeats` steps after two that warm up; random weights in BF16. */
export function measureInference(
  one: InferenceCase,
  model: ModelConfig,
  backend: Backend,
  repeats: number,
  clock: Clock = wallClock,
): { seconds: number; samples: OpSample[] } {
  const timed = timedBackend(backend, clock);
  const transformer = new Transformer(model, backend, 0);
  initialise(transformer, 0);
  const step = stepOf(one, transformerWeights(transformer, 'bf16'), timed.backend);
  const rounds = measureRounds(step, timed, repeats, clock);
  const { seconds, samples } = quiet(rounds, one.tokens, one.sequences * one.tokens);
  return { seconds, samples: renamed(samples) };
}

/** A step that can be repeated: it writes the same places of the cache again. */
function stepOf(
  { sequences, tokens, context }: InferenceCase,
  weights: WeightSource,
  backend: Backend,
): () => void {
  const perSequence = Math.ceil((context + tokens) / PAGE_TOKENS);
  const model = storedModel(weights, false);
  const runner = new StoredRunner(backend, model, { format: 'bf16', pages: sequences * perSequence });
  const range = Array.from({ length: sequences }, (_, s) => s);
  const batch: StepBatch = {
    tokens: Int32Array.from({ length: sequences * tokens }, (_, i) => i % model.config.vocab_size),
    bounds: Int32Array.from({ length: sequences + 1 }, (_, s) => s * tokens),
    lengths: range.map(() => context),
    pages: range.map((s) => Int32Array.from({ length: perSequence }, (_, p) => s * perSequence + p)),
    wanted: Int32Array.from(range, (s) => (s + 1) * tokens - 1),
  };
  return () => void runner.step(batch);
}

/** Weights in BF16 of which only the shapes exist. */
class DescribedWeights implements WeightSource {
  readonly format = 'bf16';
  private readonly shapes: ReadonlyMap<string, readonly number[]>;

  constructor(
    readonly config: ModelConfig,
    private readonly backend: Backend,
  ) {
    this.shapes = new Map(listParameters(config).map(({ name, shape }) => [name, shape]));
  }

  matrix(...names: string[]): StoredWeight {
    const rows = names.map((name) => this.shape(name)[0]!);
    return this.weight(this.shape(names[0]!).at(-1)!, 1, rows);
  }

  groups(name: string): StoredWeight {
    const [groups, rows, k] = this.shape(name) as [number, number, number];
    return this.weight(k, groups, [rows]);
  }

  slices(name: string, groups: number, _from: number, count: number): StoredWeight {
    return this.weight(this.shape(name).at(-1)!, groups, [count]);
  }

  turnedSlices(name: string, groups: number, _from: number, count: number): StoredWeight {
    return this.weight(count, groups, [this.shape(name).at(-1)!]);
  }

  vector(name: string): Tensor {
    return Tensor.zeros(this.shape(name), 'f32');
  }

  has(name: string): boolean {
    return this.shapes.has(name);
  }

  private weight(k: number, groups: number, rows: readonly number[]): StoredWeight {
    const pieces = rows.map((count) => ({ rows: count, first: 0, codes: new Uint8Array(0) }));
    return this.backend.storeWeight(
      this.format,
      k,
      Array.from({ length: groups }, () => pieces),
    );
  }

  private shape(name: string): readonly number[] {
    return this.shapes.get(name)!;
  }
}
