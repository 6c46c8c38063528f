import type { Transformer } from '../model/transformer.js';
import { Random } from '../numerics/random.js';

/** Normal deviates that all matrices are cut from; a prime length, so that rows differ, as gates must to choose evenly. */
const POOL = 1_048_573;

/** Weights to measure with: as of a fresh model in scale and spread, but in a hundredth of the time. */
export function roughWeights(model: Transformer): void {
  const random = new Random(0);
  const deviation = model.config.initializer_range;
  const pool = Float32Array.from({ length: POOL }, () => deviation * random.normal());
  for (const p of model.parameters.values()) {
    const values = p.value.data as Float32Array;
    if (p.value.shape.length === 1) values.fill(1);
    else
      for (let at = 0; at < values.length; at += POOL) values.set(pool.subarray(0, values.length - at), at);
    p.valueChanged();
  }
  for (const { bias } of model.routers.values()) (bias.data as Float32Array).fill(0);
}
