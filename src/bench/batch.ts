import type { Batch } from '../model/transformer.js';
import { Random } from '../numerics/random.js';
import type { ModelConfig } from '../spec/model.js';
import { Tensor } from '../tensor/tensor.js';

/**
 * B sequences of S random tokens, each its own segment; every token has a target. The same for equal arguments.
 * T = B·S; row b·S + i is token i of sequence b.
 */
export function randomBatch(model: ModelConfig, sequences: number, length: number): Batch {
  const depth = model.num_nextn_predict_layers;
  const random = Random.stream(0, 'bench', 'batch');
  const row = length + 1 + depth; // inputs, then one more token per depth of prediction
  const tokens = Int32Array.from({ length: sequences * row }, () => random.below(model.vocab_size));
  /** [T] the token `ahead` of each. */
  const shifted = (ahead: number): Tensor =>
    Tensor.i32(
      Int32Array.from(
        { length: sequences * length },
        (_, t) => tokens[Math.floor(t / length) * row + (t % length) + ahead]!,
      ),
    );
  const bounds = Tensor.i32(Array.from({ length: sequences + 1 }, (_, s) => s * length));
  const depths = Array.from({ length: depth }, (_, k) => k + 1);
  return {
    inputs: shifted(0),
    targets: shifted(1),
    positions: Tensor.i32(Int32Array.from({ length: sequences * length }, (_, t) => t % length)),
    segments: bounds,
    sequences: bounds,
    mtpInputs: depths.map((k) => shifted(k)),
    mtpTargets: depths.map((k) => shifted(k + 1)),
  };
}
