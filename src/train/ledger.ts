import { countingBackend } from '../backend/counting.js';
import type { Batch } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { Backend } from '../tensor/backend.js';
import { Tensor } from '../tensor/tensor.js';
import type { TrainConfig } from './config.js';
import { Trainer } from './trainer.js';

/** Memory of a training run by purpose, bytes. */
export interface Ledger {
  /** FP32 master weights and router biases. */
  parameters: number;
  /** FP32 gradient accumulators. */
  gradients: number;
  /** AdamW's moments. */
  moments: number;
  /** Copies of the weights packed for the GEMMs. */
  packedWeights: number;
  /** Activations, their gradients and temporaries at the fullest moment of a step: of a micro-batch, or of both its halves where they overlap. */
  activations: number;
  total: number;
}

/**
 * Predicts the ledger by running one step of the very same code on a backend that only counts.
 * @param like the backend whose layouts count
 */
export function predictLedger(config: TrainConfig, model: ModelConfig, like: Backend): Ledger {
  const counting = countingBackend(like);
  const trainer = new Trainer(config, model, counting.backend);
  trainer.trainStep([emptyBatch(config, model)]);
  const ledger = measureLedger(trainer);
  const rest = counting.bytes() - ledger.total;
  return { ...ledger, activations: ledger.activations + rest, total: counting.bytes() };
}

/** The ledger of a trainer that has done a step. */
export function measureLedger(trainer: Trainer): Ledger {
  let [parameters, gradients, moments, packedWeights] = [0, 0, 0, 0];
  for (const p of trainer.model.parameters.values()) {
    parameters += p.value.data.byteLength;
    gradients += p.gradientBytes;
    packedWeights += p.packedBytes;
  }
  for (const { bias } of trainer.model.routers.values()) parameters += bias.data.byteLength;
  for (const { m, v } of trainer.optimizer.segments) moments += m.data.byteLength + v.data.byteLength;
  const activations = trainer.pool.reservedBytes;
  return {
    parameters,
    gradients,
    moments,
    packedWeights,
    activations,
    total: parameters + gradients + moments + packedWeights + activations,
  };
}

/** A batch of one micro-batch's shape; its content does not matter to a backend that counts. */
export function emptyBatch(config: TrainConfig, model: ModelConfig): Batch {
  const sequences = config.batchSequences / config.microBatches;
  const tokens = sequences * config.sequenceLength;
  const ints = (n: number) => Tensor.zeros([n], 'i32');
  const perDepth = Array.from({ length: model.num_nextn_predict_layers }, () => ints(tokens));
  return {
    inputs: ints(tokens),
    targets: ints(tokens),
    positions: ints(tokens),
    segments: ints(sequences + 1),
    sequences: ints(sequences + 1),
    mtpInputs: perDepth,
    mtpTargets: perDepth,
  };
}
