/** A checkpoint written again with its weights in another type, tensor by tensor. */
import fs from 'node:fs';
import path from 'node:path';
import { UserError } from '../errors.js';
import { withFileErrors, writeFileAtomicallySync, writeFully } from '../files.js';
import { INT8_TILE } from '../numerics/weights.js';
import { configText, huggingFaceConfig } from '../spec/hugging-face.js';
import { TILE } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import type { WeightPiece } from '../tensor/inference.js';
import { elementCount } from '../tensor/tensor.js';
import type { Checkpoint } from './checkpoint.js';
import {
  FP8_PARTS,
  type HuggingFacePiece,
  listParameters,
  type ParameterSpec,
  type Part,
} from './parameters.js';
import { storedBytes, type TensorToWrite, writeSafetensorsFolder } from './safetensors.js';
import { CODE_TYPES, panelShape } from './stored-matrix.js';

export type CheckpointType = 'f32' | 'bf16' | 'fp8' | 'int8' | 'q4';

/** Files beside the weights that go along as they are. */
const COMPANIONS = [
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
  'generation_config.json',
];

/** `quantization_config` of a type: FP8 as in DeepSeek-V3's own config.json. */
const QUANTIZATION: Partial<Record<CheckpointType, object>> = {
  fp8: { activation_scheme: 'dynamic', fmt: 'e4m3', quant_method: 'fp8', weight_block_size: [TILE, TILE] },
  int8: { quant_method: 'fathom', weight_format: 'int8' },
  q4: { quant_method: 'fathom', weight_format: 'q4' },
};

/**
 * Writes the checkpoint's weights as `type` into another folder, its tokenizer along with it; `fp8` as DeepSeek publishes
 * weights, E4M3 with one FP32 scale per 128×128 block in `…_scale_inv`; `int8` and `q4` for inference here, all matrices but
 * the gates (stored-matrix.ts). config.json comes last, so that a folder with it is whole.
 * @param backend encodes the weights
 * @param written called with the bytes of tensors written so far and in all
 * @returns names of the files
 * @throws UserError when the target is the source itself, or the disk fails
 */
export function convertCheckpoint(
  checkpoint: Checkpoint,
  folder: string,
  type: CheckpointType,
  backend: Backend,
  written: (bytes: number, total: number) => void = () => {},
): string[] {
  if (path.resolve(folder) === path.resolve(checkpoint.folder)) {
    throw new UserError(
      `${folder} holds the model that is to be converted; choose another folder with --out`,
    );
  }
  const tensors = listParameters(checkpoint.config).flatMap((parameter) =>
    parameter.pieces.flatMap((piece) => tensorsOf(checkpoint, parameter, piece, type, backend)),
  );
  const files = writeSafetensorsFolder(folder, counted(tensors, written));
  const companions = COMPANIONS.filter((file) => fs.existsSync(path.join(checkpoint.folder, file)));
  for (const file of companions) copy(path.join(checkpoint.folder, file), path.join(folder, file));
  const quantization = QUANTIZATION[type];
  const json = huggingFaceConfig(checkpoint.config, type === 'f32' ? 'float32' : 'bfloat16');
  write(
    path.join(folder, 'config.json'),
    configText({ ...json, ...(quantization ? { quantization_config: quantization } : {}) }),
  );
  return [...files, ...companions, 'config.json'];
}

function tensorsOf(
  checkpoint: Checkpoint,
  { name: parameter, shape: [...shape], kind, part }: ParameterSpec,
  piece: HuggingFacePiece,
  type: CheckpointType,
  backend: Backend,
): TensorToWrite[] {
  const row = elementCount(shape) / rowsOf(shape);
  const read = () => {
    const values = new Float32Array((piece.to - piece.from) * row);
    checkpoint.readRange(parameter, piece.from * row, values);
    return values;
  };
  const { name, shape: stored } = piece;
  const encode = (format: WeightFormat) => () => backend.encodeWeight(format, read(), row);
  if (type === 'fp8' && FP8_PARTS.has(part)) return blockScaled(name, stored, encode('fp8'));
  if (type === 'int8' && isQuantised(kind, part)) return rowScaled(name, stored, encode('int8'));
  if (type === 'q4' && isQuantised(kind, part)) return panels(name, stored, encode('q4'));
  if (type === 'f32' || kind === 'buffer') {
    return [{ name, shape: stored, dtype: 'F32', data: () => encode('fp32')().codes }];
  }
  return [{ name, shape: stored, dtype: 'BF16', data: () => encode('bf16')().codes }];
}

/** Rows of a parameter flattened to [rows, last dimension]; vectors are one row. */
const rowsOf = (shape: readonly number[]): number => shape.slice(0, -1).reduce((n, d) => n * d, 1);

/** A matrix as E4M3 codes and block scales; each is made when it is its turn, so that no two matrices are in memory. */
function blockScaled(name: string, shape: readonly number[], encode: () => WeightPiece): TensorToWrite[] {
  const scaleShape = shape.map((size) => Math.ceil(size / TILE));
  return [
    { name, shape, dtype: 'F8_E4M3', data: () => encode().codes },
    { name: `${name}_scale_inv`, shape: scaleShape, dtype: 'F32', data: () => encode().scales! },
  ];
}

/** Gates decide and are small: they stay BF16 [TR §3.3.1]. */
const isQuantised = (kind: ParameterSpec['kind'], part: Part): boolean =>
  (kind === 'matrix' || kind === 'embedding') && part !== 'gate';

/** A matrix in 8 bits with scales per row. */
function rowScaled(name: string, shape: readonly number[], encode: () => WeightPiece): TensorToWrite[] {
  const [rows, columns] = shape as [number, number];
  const scaleShape = [rows, Math.ceil(columns / INT8_TILE)];
  return [
    { name, shape, dtype: CODE_TYPES.int8, data: () => encode().codes },
    { name: `${name}_scale`, shape: scaleShape, dtype: 'F32', data: () => encode().scales! },
  ];
}

/** A matrix in 4 bits. */
const panels = (name: string, shape: readonly number[], encode: () => WeightPiece): TensorToWrite[] => [
  { name, shape: panelShape(shape), dtype: CODE_TYPES.q4, data: () => encode().codes },
];

/** The same tensors, telling as they are written. */
function counted(
  tensors: readonly TensorToWrite[],
  written: (bytes: number, total: number) => void,
): TensorToWrite[] {
  const total = tensors.reduce((sum, tensor) => sum + storedBytes(tensor), 0);
  let done = 0;
  return tensors.map((tensor) => ({
    ...tensor,
    data: () => {
      const bytes = tensor.data();
      done += bytes.length;
      written(done, total);
      return bytes;
    },
  }));
}

function copy(from: string, to: string): void {
  write(
    to,
    withFileErrors('read', from, () => fs.readFileSync(from)),
  );
}

function write(file: string, content: string | Uint8Array): void {
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(content), 0));
}
