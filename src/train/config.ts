import { z } from 'zod';
import { UserError } from '../errors.js';
import { describeIssues } from '../spec/model.js';
import { RECIPES, type Recipe, recipeSchema } from '../spec/precision.js';

/**
 * A training run as data. Defaults are those of DeepSeek-V3 where its report gives them [TR §4.2], scaled
 * where a small model on a small corpus needs other values; each says so.
 */
export const trainSchema = z.strictObject({
  /** Preset name, or the content of a config.json. */
  model: z.union([z.string(), z.record(z.string(), z.unknown())]),
  /** Optimizer steps. */
  steps: z.int().positive(),
  /** Sequences per optimizer step. */
  batchSequences: z.int().positive(),
  /** Tokens per sequence. */
  sequenceLength: z.int().min(2),
  /** Forward-backward passes that one step's sequences are split into. */
  microBatches: z.int().positive().default(1),
  precision: z.union([z.enum(['fp32', 'bf16', 'fp8']), recipeSchema]).default('fp8'),
  seed: z.int().nonnegative().default(0),
  /** Peak learning rate. The report's 2.2e-4 is for 671 B parameters; small models take more. */
  learningRate: z.number().positive(),
  /** Linear warm-up. */
  warmupSteps: z.int().nonnegative(),
  /** Cosine decay from the peak to this share of it at the last step; the report ends at 7.3e-6/2.2e-4 = 1/30. */
  finalLearningRate: z
    .number()
    .min(0)
    .max(1)
    .default(1 / 30),
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.95),
  epsilon: z.number().positive().default(1e-8),
  weightDecay: z.number().nonnegative().default(0.1),
  /** Bound of the gradient's global norm. */
  clipNorm: z.number().positive().default(1),
  balance: z
    .strictObject({
      /** α of the sequence-wise balance loss. */
      alpha: z.number().nonnegative().default(0.0001),
      /** γ: step of the bias towards underloaded experts. */
      biasUpdateSpeed: z.number().nonnegative().default(0.001),
      /** Share of the run after which γ is 0: the report's last 500 B of 14.8 T tokens. */
      biasFreezeAfter: z.number().min(0).max(1).default(0.966),
    })
    .prefault({}),
  mtp: z
    .strictObject({
      /** λ: 0.3 for the first 10 T of 14.8 T tokens, then 0.1. */
      weight: z.number().nonnegative().default(0.3),
      laterWeight: z.number().nonnegative().default(0.1),
      laterAfter: z.number().min(0).max(1).default(0.676),
    })
    .prefault({}),
  recompute: z
    .strictObject({ rmsNorm: z.boolean().default(false), mlaUpProjection: z.boolean().default(false) })
    .prefault({}),
  data: z
    .strictObject({
      validationFraction: z.number().gt(0).lt(1).default(0.02),
      /** Whether attention sees past a document's start into the one packed before it. */
      crossDocuments: z.enum(['mask', 'attend']).default('mask'),
    })
    .prefault({}),
  /** Steps between validations, and between checkpoints. */
  validateEvery: z.int().positive().default(50),
  validationBatches: z.int().positive().default(8),
  checkpointEvery: z.int().positive().default(100),
  /** Checkpoints kept; older ones are deleted. */
  keepCheckpoints: z.int().min(2).default(2),
});

export type TrainConfig = z.infer<typeof trainSchema>;

/**
 * @param json content of a training file
 * @param source its name, for messages
 * @throws UserError naming file and field
 */
export function parseTrainConfig(json: unknown, source: string): TrainConfig {
  const parsed = trainSchema.safeParse(json);
  if (!parsed.success) throw new UserError(`${source}: ${describeIssues(parsed.error)}`);
  const config = parsed.data;
  if (config.batchSequences % config.microBatches !== 0) {
    throw new UserError(
      `${source}: batchSequences (${config.batchSequences}) must be a multiple of microBatches (${config.microBatches})`,
    );
  }
  return config;
}

/** The recipe that a run names or spells out. */
export const recipeOf = (config: TrainConfig): Recipe =>
  typeof config.precision === 'string' ? RECIPES[config.precision] : config.precision;

/** Tokens per optimizer step. */
export const tokensPerStep = (config: TrainConfig): number => config.batchSequences * config.sequenceLength;

/** Training settings that go with the model presets. */
export const TRAIN_PRESETS: Record<string, z.input<typeof trainSchema>> = {
  tiny: {
    model: 'tiny',
    steps: 60,
    batchSequences: 8,
    sequenceLength: 64,
    learningRate: 3e-3,
    warmupSteps: 10,
    validateEvery: 30,
    validationBatches: 4,
    checkpointEvery: 30,
  },
  mini: {
    model: 'mini',
    steps: 400,
    batchSequences: 16,
    sequenceLength: 256,
    learningRate: 3e-3,
    warmupSteps: 40,
    validateEvery: 100,
    validationBatches: 8,
    checkpointEvery: 200,
  },
  small: {
    model: 'small',
    steps: 2000,
    batchSequences: 16,
    sequenceLength: 512,
    learningRate: 1.2e-3,
    warmupSteps: 100,
    validateEvery: 200,
    validationBatches: 8,
    checkpointEvery: 200,
  },
};
