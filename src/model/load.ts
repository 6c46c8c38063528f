import type { Backend } from '../tensor/backend.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Checkpoint, readCheckpoint, writeCheckpoint } from './checkpoint.js';
import { Transformer } from './transformer.js';

/**
 * A model with the weights of a Hugging Face folder.
 * @param mtpDepth MTP modules to load; all that the checkpoint has by default
 * @throws UserError when the folder is not a checkpoint of a supported model
 */
export function loadModel(folder: string, backend: Backend, mtpDepth?: number): Transformer {
  const checkpoint = readCheckpoint(folder);
  try {
    const model = new Transformer(checkpoint.config, backend, mtpDepth);
    readWeights(checkpoint, model);
    return model;
  } finally {
    checkpoint.close();
  }
}

function readWeights(checkpoint: Checkpoint, model: Transformer): void {
  for (const spec of checkpoint.parameters) {
    const target = tensorOf(model, spec.name);
    if (target) checkpoint.readInto(spec.name, target.data as Float32Array<ArrayBuffer>);
  }
  for (const p of model.parameters.values()) p.valueChanged();
}

/** Writes the model's weights and configuration as a Hugging Face folder, with the MTP modules that it has. */
export function saveModel(folder: string, model: Transformer, dtype: 'bf16' | 'f32'): void {
  const config = { ...model.config, num_nextn_predict_layers: model.mtpDepth };
  writeCheckpoint(folder, config, (name) => tensorOf(model, name)!, { dtype });
}

const ROUTER_BIAS = /^model\.layers\.(\d+)\.mlp\.gate\.e_score_correction_bias$/;

/** A parameter's or buffer's values by name; undefined for those of MTP modules that were left out. */
function tensorOf(model: Transformer, name: string): Tensor | undefined {
  const router = ROUTER_BIAS.exec(name);
  return router ? model.routers.get(Number(router[1]))?.bias : model.parameters.get(name)?.value;
}
