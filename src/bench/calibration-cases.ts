import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { parseTrainConfig, TRAIN_PRESETS, type TrainConfig } from '../train/config.js';
import type { InferenceCase } from './inference-work.js';

/** The steps that calibration fits its costs to, and those that these are held against. */

/** A training step by name of its model, number format, and sequences of so many tokens; `patch` changes the model. */
export interface StepCase {
  model: 'tiny' | 'mini' | 'small';
  precision: 'bf16' | 'fp8';
  sequences: number;
  length: number;
  patch?: Partial<Record<keyof ModelConfig, number>>;
}

const both = (model: StepCase['model'], sequences: number, length: number): StepCase[] =>
  (['bf16', 'fp8'] as const).map((precision) => ({ model, precision, sequences, length }));

/** What costs are fitted to: three sizes of model, two of batch. */
export const FITTED: readonly StepCase[] = [
  ...both('tiny', 4, 64),
  ...both('tiny', 8, 256),
  ...both('mini', 2, 128),
  ...both('mini', 8, 256),
  ...both('small', 1, 128),
  ...both('small', 2, 256),
];

/** What they are held against: other batches, and models between. */
export const HELD_OUT: readonly StepCase[] = [
  { model: 'tiny', precision: 'bf16', sequences: 2, length: 128 },
  { model: 'tiny', precision: 'fp8', sequences: 2, length: 256 },
  { model: 'tiny', precision: 'fp8', sequences: 16, length: 128 },
  { model: 'tiny', precision: 'bf16', sequences: 4, length: 128, patch: { num_hidden_layers: 6 } },
  { model: 'mini', precision: 'bf16', sequences: 4, length: 128 },
  { model: 'mini', precision: 'bf16', sequences: 1, length: 512 },
  { model: 'mini', precision: 'fp8', sequences: 4, length: 256 },
  { model: 'mini', precision: 'fp8', sequences: 16, length: 64 },
  {
    model: 'mini',
    precision: 'fp8',
    sequences: 2,
    length: 256,
    patch: { num_hidden_layers: 4, n_routed_experts: 16 },
  },
  {
    model: 'mini',
    precision: 'bf16',
    sequences: 4,
    length: 128,
    patch: { hidden_size: 384, intermediate_size: 1024 },
  },
  { model: 'small', precision: 'fp8', sequences: 2, length: 128 },
  { model: 'small', precision: 'bf16', sequences: 1, length: 512 },
  { model: 'small', precision: 'fp8', sequences: 4, length: 128, patch: { num_hidden_layers: 5 } },
];

/** Prefill and decode of a model; decode takes one token of each sequence. */
export interface ServingCase extends InferenceCase {
  model: 'tiny' | 'mini' | 'small';
}

const prefill = (model: ServingCase['model'], sequences: number, tokens: number): ServingCase => ({
  model,
  sequences,
  tokens,
  context: 0,
});
const decode = (model: ServingCase['model'], sequences: number, context: number): ServingCase => ({
  model,
  sequences,
  tokens: 1,
  context,
});

export const FITTED_SERVING: readonly ServingCase[] = (['tiny', 'mini', 'small'] as const).flatMap(
  (model) => [
    prefill(model, 1, 64),
    prefill(model, 1, 512),
    prefill(model, 4, 256),
    decode(model, 1, 64),
    decode(model, 1, 900),
    decode(model, 4, 400),
    decode(model, 16, 64),
    decode(model, 16, 900),
  ],
);

export const HELD_OUT_SERVING: readonly ServingCase[] = [
  prefill('mini', 1, 200),
  prefill('mini', 3, 128),
  prefill('small', 2, 128),
  decode('tiny', 8, 200),
  decode('mini', 1, 300),
  decode('mini', 2, 700),
  decode('mini', 8, 200),
  decode('mini', 12, 500),
  decode('small', 2, 200),
  decode('small', 8, 600),
];
export function prepare({ model: name, precision, sequences, length, patch }: StepCase): {
  config: TrainConfig;
  model: ModelConfig;
} {
  const sizes = { batchSequences: sequences, sequenceLength: length, precision, microBatches: 1 };
  const config = parseTrainConfig({ ...TRAIN_PRESETS[name], ...sizes }, `preset ${name}`);
  return { config, model: parseModelConfig({ ...MODEL_PRESETS[name], ...patch }, `preset ${name}`) };
}

export function nameOf({ model, precision, sequences, length, patch }: StepCase): string {
  const changes = Object.entries(patch ?? {}).map(([field, value]) => `${field} ${value}`);
  return [`${model} ${precision} ${sequences}×${length}`, ...changes].join(', ');
}
export const presetOf = (name: keyof typeof MODEL_PRESETS): ModelConfig =>
  parseModelConfig(MODEL_PRESETS[name], `preset ${name}`);

export const servingName = ({ model, sequences, tokens, context }: ServingCase): string =>
  context === 0 ? `${model} prefill ${sequences}×${tokens}` : `${model} decode ${sequences} after ${context}`;
