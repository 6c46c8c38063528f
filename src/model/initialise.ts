import { Random } from '../numerics/random.js';
import type { Transformer } from './transformer.js';

/**
 * Random weights as for training from scratch: matrices and embeddings normal with standard deviation
 * `initializer_range`, norms 1, router biases 0 [TR §4.2]. Each parameter draws from its own stream of the
 * seed, so that adding one leaves the others as they were.
 */
export function initialise(model: Transformer, seed: number): void {
  for (const p of model.parameters.values()) {
    const values = p.value.data as Float32Array;
    if (p.value.shape.length === 1) values.fill(1);
    else
      fillNormal(
        values,
        model.config.initializer_range,
        Random.stream(seed, 'init', p.name),
        model.elementsBefore(p),
      );
    p.valueChanged();
  }
  for (const { bias } of model.routers.values()) (bias.data as Float32Array).fill(0);
}

/** @param skip values of the stream that come first and belong elsewhere */
function fillNormal(values: Float32Array, deviation: number, random: Random, skip: number): void {
  for (let i = 0; i < skip; i++) random.normal();
  for (let i = 0; i < values.length; i++) values[i] = deviation * random.normal();
}
