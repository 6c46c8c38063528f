import { countingBackend } from '../backend/counting.js';
import { timedBackend } from '../backend/timed.js';
import { transformerWeights } from '../infer/memory-weights.js';
import { StoredRunner } from '../infer/model-runner.js';
import type { StepBatch } from '../infer/runner.js';
import { type StoredModel, storedModel, type WeightSource } from '../infer/stored-model.js';
import { listParameters } from '../model/parameters.js';
import { Transformer } from '../model/transformer.js';
import { Random } from '../numerics/random.js';
import type { OpSample, OpWork, StepWork } from '../plan/ops.js';
import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import { MODEL_PRESETS, type ModelPreset } from '../spec/presets.js';
import type { Backend } from '../tensor/backend.js';
import type { StoredWeight } from '../tensor/inference.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { Tensor } from '../tensor/tensor.js';
import { type Clock, wallClock } from './measure.js';
import { roughWeights } from './rough-weights.js';
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

/** A step of inference reads weights and cache once. */
const stepWork = <T extends OpWork>(ops: readonly T[]): StepWork<T> => ({
  ops,
  touchedBytes: ops.reduce((sum, { bytes }) => sum + bytes, 0),
});

/** Counted on a backend that computes nothing. */
export function countInference(one: InferenceCase, model: ModelConfig, like: Backend): StepWork {
  const counting = timedBackend(countingBackend(like).backend);
  const weights = storedModel(new DescribedWeights(model, counting.backend), false);
  const step = stepOf(one, weights, counting.backend, false);
  step();
  counting.reset();
  step();
  const work = counting.times().map((time) => workOf(time, one.tokens));
  return stepWork(renamed(withBetween(work, one.sequences * one.tokens)));
}

/** Presets with random weights in BF16, one at a time. */
export class StoredPresets {
  private last: { name: ModelPreset; model: StoredModel } | undefined;

  constructor(private readonly backend: Backend) {}

  open(name: ModelPreset): StoredModel {
    if (this.last?.name !== name) {
      const transformer = new Transformer(
        parseModelConfig(MODEL_PRESETS[name], `preset ${name}`),
        this.backend,
        0,
      );
      roughWeights(transformer);
      this.last = { name, model: storedModel(transformerWeights(transformer, 'bf16'), false) };
    }
    return this.last.model;
  }
}

/** Lower quartiles of `repeats` steps or more, after some that warm up. */
export function measureInference(
  one: InferenceCase,
  model: StoredModel,
  backend: Backend,
  repeats: number,
  clock: Clock = wallClock,
): { seconds: number; step: StepWork<OpSample> } {
  const timed = timedBackend(backend, clock);
  timed.measuring = false;
  const step = stepOf(one, model, timed.backend, true);
  const rounds = measureRounds(step, timed, repeats, clock);
  const { seconds, samples } = quiet(rounds, one.tokens, one.sequences * one.tokens);
  return { seconds, step: stepWork(renamed(samples)) };
}

/** Tokens of a prompt that are read at a time to fill the cache. */
const CHUNK = 512;

/**
 * A step that can be repeated: it writes the same places of the cache again.
 * @param read whether the context before it is read first; what attention sees decides which experts rows go to
 */
function stepOf(
  { sequences, tokens, context }: InferenceCase,
  model: StoredModel,
  backend: Backend,
  read: boolean,
): () => void {
  const perSequence = Math.ceil((context + tokens) / PAGE_TOKENS);
  const runner = new StoredRunner(backend, model, { format: 'bf16', pages: sequences * perSequence });
  const random = new Random(0);
  const pagesOf = (s: number) => Int32Array.from({ length: perSequence }, (_, p) => s * perSequence + p);
  const batchOf = (members: readonly number[], length: number, before: number): StepBatch => ({
    tokens: Int32Array.from({ length: members.length * length }, () => random.below(model.config.vocab_size)),
    bounds: Int32Array.from({ length: members.length + 1 }, (_, s) => s * length),
    lengths: members.map(() => before),
    pages: members.map(pagesOf),
    wanted: Int32Array.from(members, (_, s) => (s + 1) * length - 1),
  });
  const all = Array.from({ length: sequences }, (_, s) => s);
  for (const s of read ? all : []) {
    for (let at = 0; at < context; at += CHUNK) runner.step(batchOf([s], Math.min(CHUNK, context - at), at));
  }
  const batch = batchOf(all, tokens, context);
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
