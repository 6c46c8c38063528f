import path from 'node:path';
import { LATENT_NORM_EPS } from '../../model/mla.js';
import type { Value } from './format.js';
import { TENSOR_TYPES, type TensorTypeName } from './format.js';
import { modelMetadata, text, u32 } from './metadata.js';
import { modelTensors, type WeightSource } from './tensors.js';
import { tokenizerMetadata } from './tokenizer.js';
import { writeGguf } from './writer.js';

export interface ConvertOptions {
  /** Type of the matrices. */
  type: TensorTypeName;
  /** llama.cpp's name of the pre-tokenizer, where it cannot be told from tokenizer.json. */
  preTokenizer?: string;
  /** Called with the bytes written so far and in all. */
  written?: (bytes: number, total: number) => void;
}

/** What was written. */
export interface Converted {
  tensors: number;
  /** Where llama.cpp will differ, one line each. */
  notes: string[];
}

/**
 * Writes a model as one GGUF file of the architecture `deepseek2`.
 * @param folder that of the model: its name and its tokenizer
 * @throws UserError when llama.cpp cannot run the model or its tokenizer, or the disk fails
 */
export function convertToGguf(
  source: WeightSource,
  folder: string,
  file: string,
  { type, preTokenizer, written }: ConvertOptions,
): Converted {
  const tokenizer = tokenizerMetadata(folder, source.config, preTokenizer);
  const metadata = new Map<string, Value>([
    ['general.architecture', text('deepseek2')],
    ['general.type', text('model')],
    ['general.name', text(path.basename(path.resolve(folder)))],
    ['general.file_type', u32(TENSOR_TYPES[type].fileType)],
    ['general.quantization_version', u32(2)],
    ...modelMetadata(source.config, path.join(folder, 'config.json')),
    ...tokenizer.values,
  ]);
  const tensors = modelTensors(source, type);
  writeGguf(file, metadata, tensors, written);
  return { tensors: tensors.length, notes: [...differences(source), ...tokenizer.notes] };
}

/** Where llama.cpp runs another model than transformers does. */
function differences({ config }: WeightSource): string[] {
  const notes: string[] = [];
  if (config.num_nextn_predict_layers > 0) {
    notes.push("MTP modules are left out: llama.cpp's converter leaves them out for deepseek2 too");
  }
  if (config.rms_norm_eps !== LATENT_NORM_EPS) {
    notes.push(
      `llama.cpp uses rms_norm_eps (${config.rms_norm_eps}) in the norms of the latents too, transformers ${LATENT_NORM_EPS}`,
    );
  }
  return notes;
}
