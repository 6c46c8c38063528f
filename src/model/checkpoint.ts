/**
 * Checkpoints in Hugging Face layout: `config.json`, `generation_config.json`, safetensors. Tokenizer files are not
 * touched. Parameters go by the names of `parameters.ts`.
 */
import path from 'node:path';
import { UserError } from '../errors.js';
import { readJsonFile, writeFileAtomicallySync, writeFully } from '../files.js';
import { decodeBf16Array, encodeBf16Array } from '../numerics/bf16.js';
import { configText, huggingFaceConfig } from '../spec/hugging-face.js';
import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import { elementCount, Tensor } from '../tensor/tensor.js';
import { type HuggingFacePiece, listParameters, type ParameterSpec } from './parameters.js';
import {
  SafetensorsReader,
  type StoredTensor,
  type TensorToWrite,
  writeSafetensorsFolder,
} from './safetensors.js';
import { findMatrix, readMatrix, type StoredMatrix } from './stored-matrix.js';

/**
 * A checkpoint opened for reading. Names, shapes and types of all tensors have been checked; values are read
 * when asked for.
 */
export class Checkpoint {
  /** What was accepted although it looks odd, one line each. */
  readonly notes: readonly string[];
  readonly parameters: readonly ParameterSpec[];
  private readonly specs: ReadonlyMap<string, ParameterSpec>;
  private readonly sources: ReadonlyMap<string, StoredMatrix[]>;

  private constructor(
    readonly folder: string,
    readonly config: ModelConfig,
    /** `config.json` as it is. */
    readonly json: unknown,
    private readonly reader: SafetensorsReader,
    notes: string[],
  ) {
    this.notes = notes;
    this.parameters = listParameters(config);
    this.specs = new Map(this.parameters.map((parameter) => [parameter.name, parameter]));
    this.checkNothingMissing();
    this.sources = new Map(this.parameters.map((parameter) => [parameter.name, this.findSources(parameter)]));
    this.checkNothingElse();
  }

  /**
   * Opens a folder. Accepts one tensor per expert, as DeepSeek and transformers write them, and fused experts;
   * weights as `stored-matrix.ts` describes them.
   * @throws UserError naming file, tensor and remedy when anything is missing, left over or does not fit
   */
  static open(folder: string): Checkpoint {
    const file = path.join(folder, 'config.json');
    const json = readJsonFile(file);
    const config = parseModelConfig(json, file);
    const reader = SafetensorsReader.open(folder);
    try {
      const notes: string[] = [];
      return new Checkpoint(folder, withoutAbsentMtp(config, reader, notes), json, reader, notes);
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  /** A parameter's shape and place. @throws Error for a name that the model does not have */
  spec(name: string): ParameterSpec {
    const found = this.specs.get(name);
    if (!found) throw new Error(`no parameter ${name}`);
    return found;
  }

  /** A parameter as f32, dequantised, in fresh memory. */
  read(name: string): Tensor {
    const { shape } = this.spec(name);
    const data = new Float32Array(elementCount(shape));
    this.readInto(name, data);
    return new Tensor(shape, 'f32', data);
  }

  /** A parameter's values as f32 into memory of the same number of elements. */
  readInto(name: string, out: Float32Array<ArrayBuffer>): void {
    this.readRange(name, 0, out);
  }

  /** Elements of a parameter from element `begin` on, as f32, until `out` is full: memory for what is asked only. */
  readRange(name: string, begin: number, out: Float32Array<ArrayBuffer>): void {
    let start = 0;
    for (const matrix of this.matrices(name)) {
      const size = elementCount(matrix.piece.shape);
      const from = Math.max(begin, start);
      const to = Math.min(begin + out.length, start + size);
      if (from < to) readMatrix(this.reader, matrix, out.subarray(from - begin, to - begin), from - start);
      start += size;
    }
  }

  /** The published tensors that make up a parameter, in the order of its rows. */
  matrices(name: string): readonly StoredMatrix[] {
    return this.sources.get(this.spec(name).name)!;
  }

  /** A parameter as bf16: the stored bits where it is stored so, else rounded to nearest even. */
  readBf16(name: string): Tensor {
    const { shape } = this.spec(name);
    const matrices = this.matrices(name);
    if (!matrices.every(({ codes }) => codes.dtype === 'BF16')) {
      return new Tensor(shape, 'bf16', encodeBf16Array(this.read(name).data as Float32Array));
    }
    const data = new Uint16Array(elementCount(shape));
    let start = 0;
    for (const { codes } of matrices) {
      data.set(new Uint16Array(this.reader.read(codes.name).buffer), start);
      start += elementCount(codes.shape);
    }
    return new Tensor(shape, 'bf16', data);
  }

  /** Types and bytes of everything stored, by Hugging Face name. */
  get stored(): ReadonlyMap<string, StoredTensor> {
    return this.reader.tensors;
  }

  close(): void {
    this.reader.close();
  }

  private findSources(parameter: ParameterSpec): StoredMatrix[] {
    return this.piecesOf(parameter).map((piece) => findMatrix(piece, this.reader, this.config.quantization));
  }

  /** The stored tensors that make up a parameter: experts may be stored fused, under our own name. */
  private piecesOf({ name, shape, part, pieces }: ParameterSpec): readonly HuggingFacePiece[] {
    const fused = part === 'routedExperts' && this.reader.tensors.has(name);
    return fused ? [{ name, shape, from: 0, to: shape[0]! }] : pieces;
  }

  private checkNothingMissing(): void {
    const pieces = this.parameters.flatMap((parameter) => this.piecesOf(parameter));
    const missing = pieces.filter(({ name }) => !this.reader.tensors.has(name));
    if (missing.length === 0) return;
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : '';
    throw new UserError(
      `${this.folder} lacks tensor ${missing[0]!.name}${more}, which config.json asks for; ` +
        'get the missing files or correct the sizes in config.json',
    );
  }

  private checkNothingElse(): void {
    const used = new Set([...this.sources.values()].flat().flatMap((s) => [s.codes.name, s.scales?.name]));
    const extra = [...this.reader.tensors.values()].filter(
      ({ name }) => !used.has(name) && !isHarmless(name, this.config),
    );
    if (extra.length === 0) return;
    const { name, file } = extra[0]!;
    const more = extra.length > 1 ? ` (and ${extra.length - 1} more)` : '';
    throw new UserError(
      `${file}: tensor ${name}${more} has no place in the model that config.json describes; ` +
        'check model_type, num_hidden_layers, num_nextn_predict_layers and n_routed_experts',
    );
  }
}

/** Opens the checkpoint in `folder`; see `Checkpoint.open`. */
export const readCheckpoint = (folder: string): Checkpoint => Checkpoint.open(folder);

/**
 * transformers drops MTP modules when it saves, but leaves their number in config.json; such a checkpoint is read
 * as one without them.
 */
function withoutAbsentMtp(config: ModelConfig, reader: SafetensorsReader, notes: string[]): ModelConfig {
  if (config.num_nextn_predict_layers === 0) return config;
  const modules = listParameters(config).filter((parameter) => parameter.mtp);
  const present = modules.some(
    (p) => reader.tensors.has(p.name) || p.pieces.some((q) => reader.tensors.has(q.name)),
  );
  if (present) return config;
  notes.push(
    `${reader.source} has no weights for the ${config.num_nextn_predict_layers} MTP module(s) of config.json; reading it without`,
  );
  return { ...config, num_nextn_predict_layers: 0 };
}

/** Tensors that some files carry and nobody needs: copies of shared weights, and rotary frequencies. */
function isHarmless(name: string, c: ModelConfig): boolean {
  if (name.endsWith('.rotary_emb.inv_freq')) return true;
  if (name === 'lm_head.weight') return c.tie_word_embeddings;
  const shared = /^model\.layers\.(\d+)\.(embed_tokens|shared_head\.head)\.weight$/.exec(name);
  const layer = Number(shared?.[1] ?? -1);
  return layer >= c.num_hidden_layers && layer < c.num_hidden_layers + c.num_nextn_predict_layers;
}

// ---- Writing --------------------------------------------------------------------------------------------------

export interface WriteOptions {
  /** Type of the weights; the gate's bias is F32 always, as DeepSeek publishes it. */
  dtype: 'bf16' | 'f32';
  /** Largest shard in bytes of data; one file where absent. */
  maxShardBytes?: number;
}

/**
 * Writes a model as a checkpoint that transformers loads as Deepseek-V3 or -V2 `ForCausalLM`. Each file replaces
 * its predecessor only when complete; `config.json` comes last, so that a folder with it is whole.
 * @param getTensor values of a parameter by our name, f32 or bf16, in the shape of its spec; asked for one after
 *   the other
 * @returns names of the files
 * @throws UserError when the disk fails
 */
export function writeCheckpoint(
  folder: string,
  config: ModelConfig,
  getTensor: (name: string) => Tensor,
  { dtype, maxShardBytes }: WriteOptions,
): string[] {
  const tensors = listParameters(config).flatMap((parameter) => splitParameter(parameter, getTensor, dtype));
  const files = writeSafetensorsFolder(folder, tensors, maxShardBytes);
  const ids = { bos_token_id: config.bos_token_id, eos_token_id: config.eos_token_id };
  const json = huggingFaceConfig(config, dtype === 'bf16' ? 'bfloat16' : 'float32');
  writeText(path.join(folder, 'generation_config.json'), configText({ _from_model_config: true, ...ids }));
  writeText(path.join(folder, 'config.json'), configText(json));
  return [...files, 'generation_config.json', 'config.json'];
}

function writeText(file: string, text: string): void {
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(text), 0));
}

/** The published tensors of a parameter; its values are fetched when the first of them is written. */
function splitParameter(
  parameter: ParameterSpec,
  getTensor: (name: string) => Tensor,
  dtype: 'bf16' | 'f32',
): TensorToWrite[] {
  const stored = dtype === 'f32' || parameter.kind === 'buffer' ? 'F32' : 'BF16';
  let left = parameter.pieces.length;
  let values: Tensor | undefined;
  return parameter.pieces.map(({ name, shape, from, to }) => ({
    name,
    shape,
    dtype: stored,
    data: () => {
      values ??= fetch(parameter, getTensor);
      const width = values.data.length / parameter.pieces.at(-1)!.to;
      const bytes = encode(values, from * width, to * width, stored);
      if (--left === 0) values = undefined;
      return bytes;
    },
  }));
}

function fetch({ name, shape }: ParameterSpec, getTensor: (name: string) => Tensor): Tensor {
  const tensor = getTensor(name);
  if (tensor.shape.join() !== shape.join()) {
    throw new Error(`parameter ${name} has shape [${tensor.shape}] instead of [${shape}]`);
  }
  if (tensor.dtype !== 'f32' && tensor.dtype !== 'bf16')
    throw new Error(`parameter ${name} is ${tensor.dtype}`);
  return tensor;
}

/** Elements `from`..`to` of an f32 or bf16 tensor as stored bytes. */
function encode(tensor: Tensor, from: number, to: number, dtype: 'F32' | 'BF16'): Uint8Array {
  let part = tensor.data.subarray(from, to);
  if (dtype === 'BF16' && part instanceof Float32Array) part = encodeBf16Array(part);
  if (dtype === 'F32' && part instanceof Uint16Array) part = decodeBf16Array(part);
  return new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
}
