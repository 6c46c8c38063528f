import type { ModelConfig } from '../spec/model.js';
import type { Checkpoint } from './checkpoint.js';
import {
  countParameters,
  FP8_PARTS,
  listParameters,
  type ParameterCount,
  type ParameterSpec,
  type Part,
} from './parameters.js';
import { type StoredType, storedBytes } from './safetensors.js';

/** One tensor of a checkpoint in Hugging Face layout. */
interface Entry {
  name: string;
  dtype: StoredType;
  shape: readonly number[];
}

/** Tensors that differ only in their layer or expert. */
export interface TensorGroup {
  /** With ranges in place of layers and experts: `model.layers.{3-60}.mlp.gate.weight`. */
  name: string;
  part: Part | 'other';
  /** Whether they belong to MTP modules. */
  mtp: boolean;
  dtype: StoredType;
  /** Of one tensor. */
  shape: readonly number[];
  /** How many there are. */
  tensors: number;
  /** Elements of all. */
  elements: number;
  /** Bytes of all. */
  bytes: number;
}

/** Sizes of a model. */
export interface ModelSummary {
  config: ModelConfig;
  parameters: ParameterCount;
  /** Bytes of one token in the cache, all decoder layers, BF16 [ISCA table 1]. */
  cacheBytesPerToken: number;
  tensors: TensorGroup[];
  /** Bytes of all tensors. */
  bytes: number;
}

/** A model that is only described: tensors as DeepSeek publishes such a one. */
export function summariseModel(config: ModelConfig): ModelSummary {
  return summary(
    config,
    listParameters(config).flatMap((parameter) => publishedTensors(config, parameter)),
  );
}

/** A checkpoint as it is stored. */
export function summariseCheckpoint(checkpoint: Checkpoint): ModelSummary {
  return summary(checkpoint.config, [...checkpoint.stored.values()]);
}

function summary(config: ModelConfig, entries: readonly Entry[]): ModelSummary {
  const tensors = group(config, entries);
  return {
    config,
    parameters: countParameters(config),
    cacheBytesPerToken: cacheBytesPerToken(config),
    tensors,
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/**
 * Values of two bytes per layer: c^KV and k^R are all that MLA keeps, d_c + d_h^R [V2 §2.1.3]; the others keep keys and
 * values of every key-value head.
 */
function cacheBytesPerToken(c: ModelConfig): number {
  const head = c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim;
  const latents = c.kv_lora_rank + c.qk_rope_head_dim;
  return (c.attention_kind === 'mla' ? latents : c.num_key_value_heads * head) * c.num_hidden_layers * 2;
}

function publishedTensors(config: ModelConfig, { kind, part, pieces }: ParameterSpec): Entry[] {
  if (kind === 'buffer') return pieces.map(({ name, shape }) => ({ name, shape, dtype: 'F32' }));
  if (config.quantization?.method !== 'fp8' || !FP8_PARTS.has(part)) {
    return pieces.map(({ name, shape }) => ({ name, shape, dtype: 'BF16' }));
  }
  const [height, width] = config.quantization.weight_block_size;
  return pieces.flatMap(({ name, shape: [rows, columns] }) => [
    { name, shape: [rows!, columns!], dtype: 'F8_E4M3' },
    {
      name: `${name}_scale_inv`,
      shape: [Math.ceil(rows! / height), Math.ceil(columns! / width)],
      dtype: 'F32',
    },
  ]);
}

// ---- Grouping -------------------------------------------------------------------------------------------------

/** A number between dots: a layer, then perhaps an expert. */
const INDEX = /(?<=\.)\d+(?=\.)/g;

function group(config: ModelConfig, entries: readonly Entry[]): TensorGroup[] {
  const parts = partsByName(config);
  const groups = new Map<string, { entries: Entry[]; part: Part | 'other'; mtp: boolean }>();
  for (const entry of entries) {
    const layer = Number(entry.name.match(INDEX)?.[0] ?? -1);
    const mtp = layer >= config.num_hidden_layers;
    const key = [entry.name.replaceAll(INDEX, '*'), mtp, entry.dtype, entry.shape].join(' ');
    const known = groups.get(key);
    if (known) known.entries.push(entry);
    else groups.set(key, { entries: [entry], part: partOf(parts, entry.name), mtp });
  }
  return [...groups.values()].map(({ entries: members, part, mtp }) => {
    const { dtype, shape } = members[0]!;
    const elements = members.length * shape.reduce((n, d) => n * d, 1);
    const bytes = members.length * storedBytes(members[0]!);
    const name = commonName(members.map((member) => member.name));
    return { name, part, mtp, dtype, shape, tensors: members.length, elements, bytes };
  });
}

function partsByName(config: ModelConfig): Map<string, Part> {
  const parts = new Map<string, Part>();
  for (const parameter of listParameters(config)) {
    parts.set(parameter.name, parameter.part);
    for (const { name } of parameter.pieces) parts.set(name, parameter.part);
  }
  return parts;
}

/** Scales belong where their weight does. */
const partOf = (parts: ReadonlyMap<string, Part>, name: string): Part | 'other' =>
  parts.get(name.replace(/_scale(_inv)?$/, '')) ?? 'other';

/** Names that differ in numbers only, as one name with ranges. */
function commonName(names: readonly string[]): string {
  const numbers = names.map((name) => name.match(INDEX) ?? []);
  let position = -1;
  return names[0]!.replaceAll(INDEX, () => {
    position++;
    return ranges(numbers.map((found) => Number(found[position])));
  });
}

/** 3, 4, 5, 9 → "{3-5,9}"; one number stays as it is. */
function ranges(values: readonly number[]): string {
  const sorted = [...new Set(values)].sort((a, b) => a - b);
  if (sorted.length === 1) return String(sorted[0]);
  const spans: [number, number][] = [];
  for (const value of sorted) {
    const last = spans.at(-1);
    if (last && value === last[1] + 1) last[1] = value;
    else spans.push([value, value]);
  }
  return `{${spans.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(',')}}`;
}
