import type { Transformer } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import { EncodedWeights } from './encoded-weights.js';

/** Weights whose FP32 values are in memory. */
export class MemoryWeights extends EncodedWeights {
  constructor(
    config: ModelConfig,
    backend: Backend,
    format: WeightFormat,
    /** f32 values of a parameter, undefined where the model lacks it. */
    private readonly valuesOf: (name: string) => Float32Array | undefined,
  ) {
    super(config, backend, format);
  }

  has(name: string): boolean {
    return this.valuesOf(name) !== undefined;
  }

  protected values(name: string, begin: number, count: number): Float32Array {
    const values = this.valuesOf(name);
    if (!values) throw new Error(`there are no values of ${name}`);
    return values.subarray(begin, begin + count);
  }
}

/** The weights of a model that is being trained, or was initialised. */
export function transformerWeights(model: Transformer, format: WeightFormat): MemoryWeights {
  const bias = /^model\.layers\.(\d+)\.mlp\.gate\.e_score_correction_bias$/;
  return new MemoryWeights(model.config, model.backend, format, (name) => {
    const router = bias.exec(name);
    const tensor = router ? model.routers.get(Number(router[1]))?.bias : model.parameters.get(name)?.value;
    return tensor?.data as Float32Array | undefined;
  });
}
