/**
 * fathom as a library: describe, train, open and use models of DeepSeek-V3's architecture.
 *
 * ```ts
 * import { generate, openModel, openTokenizer, runTraining, SILENT_UI } from 'fathom';
 *
 * await runTraining({ preset: 'tiny', out: 'runs/tiny' }, SILENT_UI);
 * const { model, recipe } = openModel('runs/tiny');
 * const tokenizer = openTokenizer('runs/tiny', model);
 * const prompt = [...tokenizer.encode('The state of the Union')];
 * const sampling = { temperature: 0.8, topP: 0.95, topK: 0 };
 * const { text } = generate(model, tokenizer, recipe, prompt, { maxTokens: 50, seed: 0, ...sampling });
 * ```
 *
 * Everything throws `UserError` for what a user can put right.
 */
export { UsageError, UserError } from './errors.js';
export { type Generated, type GenerateOptions, generate } from './infer/generate.js';
export { type OpenModel, type OpenOptions, openModel, openTokenizer } from './infer/open.js';
export { type Score, score, type TokenProbability } from './infer/score.js';
export { type Checkpoint, readCheckpoint } from './model/checkpoint.js';
export {
  countParameters,
  listParameters,
  type ParameterCount,
  type ParameterSpec,
} from './model/parameters.js';
export { type ModelSummary, summariseCheckpoint, summariseModel, type TensorGroup } from './model/summary.js';
export type { Transformer } from './model/transformer.js';
export type { Progress, Stage } from './report/progress.js';
export { SILENT_UI, type Ui } from './report/ui.js';
export { type ModelConfig, parseModelConfig } from './spec/model.js';
export { RECIPES, type Recipe, recipeSchema } from './spec/precision.js';
export { MODEL_PRESETS, type ModelPreset } from './spec/presets.js';
export type { Tensor } from './tensor/tensor.js';
export { type BpeOptions, type BpeVocabulary, trainBpe } from './text/bpe.js';
export { BUNDLED_CORPORA, type CorpusSource, readDocuments } from './text/corpus.js';
export { Tokenizer } from './text/tokenizer.js';
export { SPECIAL_TOKENS, saveTokenizer } from './text/tokenizer-files.js';
export { parseTrainConfig, TRAIN_PRESETS, type TrainConfig } from './train/config.js';
export { type Metrics, readMetrics } from './train/metrics.js';
export { runTraining, type TrainResult } from './train/run.js';
export type { RunOptions } from './train/run-file.js';
