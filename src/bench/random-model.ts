/** Checkpoints of random weights in the shape of a preset, for measuring: made once, kept in the cache folder. */
import fs from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { writeCheckpoint } from '../model/checkpoint.js';
import { listParameters, type ParameterSpec } from '../model/parameters.js';
import { encodeBf16, encodeBf16Array } from '../numerics/bf16.js';
import { Random } from '../numerics/random.js';
import type { Ui } from '../report/ui.js';
import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import { MODEL_PRESETS, type ModelPreset } from '../spec/presets.js';
import { elementCount, Tensor } from '../tensor/tensor.js';
import type { BpeVocabulary } from '../text/bpe.js';
import { BYTE_TO_CHAR } from '../text/byte-level.js';
import { SPECIAL_TOKENS, saveTokenizer } from '../text/tokenizer-files.js';

/** Where models and peers of the benchmarks are kept: FATHOM_CACHE, or ~/.cache/fathom. */
export const cacheFolder = (): string => process.env.FATHOM_CACHE ?? path.join(homedir(), '.cache', 'fathom');

/** Normal deviates that all matrices are cut from; a prime length, so that cuts seldom meet rows at the same place. */
const POOL = 4_194_301;
const SEED = 1;

/**
 * The checkpoint folder of a preset with random BF16 weights, which is written if it is not there yet.
 * @throws UserError when the disk fails
 */
export function randomModel(preset: ModelPreset, ui: Ui): string {
  const folder = path.join(cacheFolder(), 'models', preset);
  if (fs.existsSync(path.join(folder, 'config.json'))) return folder;
  const config = parseModelConfig(MODEL_PRESETS[preset], `preset ${preset}`);
  const weights = new RandomWeights(config);
  const progress = ui.progress(`random ${preset}`);
  const total = listParameters(config).length;
  let done = 0;
  saveTokenizer(folder, syntheticVocabulary(config.vocab_size));
  writeCheckpoint(
    folder,
    config,
    (name) => {
      progress.update({ done: done++, total });
      return weights.tensor(name);
    },
    { dtype: 'bf16' },
  );
  progress.end();
  return folder;
}

/** Weights as a fresh model has them: matrices normal with the model's deviation, norms one, biases of gates zero. */
class RandomWeights {
  private readonly pool: Uint16Array;
  private readonly specs: ReadonlyMap<string, ParameterSpec>;

  constructor(config: ModelConfig) {
    const random = new Random(SEED);
    const values = Float32Array.from({ length: POOL }, () => config.initializer_range * random.normal());
    this.pool = encodeBf16Array(values);
    this.specs = new Map(listParameters(config).map((spec) => [spec.name, spec]));
  }

  tensor(name: string): Tensor {
    const { shape, kind } = this.specs.get(name)!;
    const data = new Uint16Array(elementCount(shape));
    if (kind === 'norm') data.fill(encodeBf16(1));
    else if (kind !== 'buffer') this.fill(data, Random.stream(SEED, name));
    return new Tensor(shape, 'bf16', data);
  }

  private fill(data: Uint16Array, random: Random): void {
    for (let at = 0; at < data.length; ) {
      const from = random.below(POOL);
      const part = this.pool.subarray(from, from + data.length - at);
      data.set(part, at);
      at += part.length;
    }
  }
}

/** A byte-level vocabulary of any size: special tokens, the bytes, then every token in turn with every byte after it. */
export function syntheticVocabulary(size: number): BpeVocabulary {
  const tokens: string[] = [...Object.values(SPECIAL_TOKENS), ...BYTE_TO_CHAR];
  const merges: [string, string][] = [];
  for (let left = tokens.length - BYTE_TO_CHAR.length; tokens.length < size; left++) {
    for (const right of BYTE_TO_CHAR.slice(0, size - tokens.length)) {
      merges.push([tokens[left]!, right]);
      tokens.push(tokens[left]! + right);
    }
  }
  return { tokens, merges };
}
