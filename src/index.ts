/**
 * fathom as a library: describe, train, open and use models of DeepSeek-V3's architecture.
 *
 * ```ts
 * import { openEngine } from 'fathom';
 *
 * const engine = await openEngine('runs/mini');
 * for await (const event of engine.generate({ prompt: 'The state of the Union', maxTokens: 50 })) {
 *   if (event.type === 'text') process.stdout.write(event.text);
 * }
 * await engine.close();
 * ```
 *
 * Everything throws `UserError` for what a user can put right.
 */
export { buildNetwork } from './cluster/build.js';
export { costOf, type NetworkCost } from './cluster/cost.js';
export { type FlowTimes, runFlows } from './cluster/flow-engine.js';
export { FlowList, type Flows } from './cluster/flows.js';
export type { Network } from './cluster/graph.js';
export { type PacketResult, simulatePackets } from './cluster/packet/simulate.js';
export { failuresOf, type ReliabilityReport } from './cluster/reliability.js';
export { type SimulationResult, simulate } from './cluster/simulate.js';
export { type Validation, validate } from './cluster/validate.js';
export { UsageError, UserError } from './errors.js';
export {
  type Engine,
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  type FinishReason,
  type GenerateEvent,
  type GenerateRequest,
  QueueFullError,
  type ResponseFormat,
  type SamplingOptions,
  type TokenDetail,
  type TokenLogprob,
  type Usage,
} from './infer/engine.js';
export { type OpenModel, type OpenOptions, openModel, openTokenizer } from './infer/open.js';
export { openEngine } from './infer/open-engine.js';
export { type Score, score, type TokenProbability } from './infer/score.js';
export { openEngineInWorker } from './infer/worker-engine.js';
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
export { type NetworkSpec, parseNetwork } from './spec/network.js';
export { RECIPES, type Recipe, recipeSchema } from './spec/precision.js';
export { MODEL_PRESETS, type ModelPreset } from './spec/presets.js';
export { parseScenario, type Scenario } from './spec/scenario.js';
export { CACHE_FORMATS, type CacheFormat, WEIGHT_FORMATS, type WeightFormat } from './spec/serving.js';
export type { Tensor } from './tensor/tensor.js';
export { type BpeOptions, type BpeVocabulary, trainBpe } from './text/bpe.js';
export { type ChatMessage, ChatTemplate } from './text/chat-template.js';
export { BUNDLED_CORPORA, type CorpusSource, readDocuments } from './text/corpus.js';
export { Tokenizer } from './text/tokenizer.js';
export { SPECIAL_TOKENS, saveTokenizer } from './text/tokenizer-files.js';
export { parseTrainConfig, TRAIN_PRESETS, type TrainConfig } from './train/config.js';
export { type Metrics, readMetrics } from './train/metrics.js';
export { runTraining, type TrainResult } from './train/run.js';
export type { RunOptions } from './train/run-file.js';
