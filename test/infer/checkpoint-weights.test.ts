import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { selectBackend } from '../../src/backend/select.js';
import { CheckpointWeights, storedFormat } from '../../src/infer/checkpoint-weights.js';
import { openRunner } from '../../src/infer/open-runner.js';
import { storedModel, weightsOf } from '../../src/infer/stored-model.js';
import { readCheckpoint } from '../../src/model/checkpoint.js';
import { type CheckpointType, convertCheckpoint } from '../../src/model/convert.js';
import type { WeightFormat } from '../../src/spec/serving.js';
import { modelFolder } from './model-folder.js';

const backend = selectBackend('native', 2);
let folder: string;
beforeAll(async () => {
  folder = await modelFolder();
});

function converted(type: CheckpointType): string {
  const to = path.join(folder, type);
  const source = readCheckpoint(folder);
  convertCheckpoint(source, to, type, backend);
  source.close();
  return to;
}

/** Logits of ten tokens in one step and of one after them. */
function logits(from: string, weights?: WeightFormat): Float32Array[] {
  const runner = openRunner(from, {
    cache: 'fp32',
    cacheTokens: 64,
    threads: 2,
    ...(weights && { weights }),
  });
  const pages = [Int32Array.of(0)];
  const step = (tokens: Int32Array, length: number) => {
    const bounds = Int32Array.of(0, tokens.length);
    const batch = { tokens, bounds, lengths: [length], pages, wanted: Int32Array.of(tokens.length - 1) };
    return (runner.step(batch).logits.data as Float32Array).slice();
  };
  const first = step(
    Int32Array.from({ length: 10 }, (_, i) => 7 * i + 3),
    0,
  );
  const second = step(Int32Array.of(5), 10);
  runner.close();
  return [first, second];
}

describe.each(['fp8', 'int8', 'q4'] as const)('a checkpoint in %s', (format) => {
  it('gives the logits of the same weights brought into that format when they are loaded', () => {
    // W^UK turned is encoded from what the checkpoint holds: FP32 there, codes here. Its scales run along the other dimension, so
    // that both round; half a step of 8 bits in one of the matrices of a layer moves logits by a few percent.
    const [stored, loaded] = [logits(converted(format)), logits(folder, format)];
    stored.forEach((values, i) => {
      const size = Math.max(...values.map(Math.abs));
      values.forEach((value, j) => {
        expect(Math.abs(value - loaded[i]![j]!)).toBeLessThan(0.1 * size);
      });
    });
  });

  it('gives what its weights give when they are decoded and multiplied in FP32', () => {
    const folder = converted(format);
    const [narrow, wide] = [logits(folder), logits(folder, 'fp32')];
    // What is left is how tokens are rounded: to BF16 (2^-9 of each value), or to 8 bits with a scale per 128 (2^-8 of the
    // largest), in every product of two layers.
    const most = format === 'fp8' ? 0.02 : 0.06;
    narrow.forEach((values, i) => {
      const size = Math.max(...wide[i]!.map(Math.abs));
      const error = Math.max(...values.map((value, j) => Math.abs(value - wide[i]![j]!))) / size;
      expect(error).toBeLessThan(most);
      expect(error).toBeGreaterThan(0);
    });
  });

  it('tells how much of it is in memory', () => {
    const runner = openRunner(converted(format), { cacheTokens: 64, threads: 2 });
    // Just written, so that the system still has all its pages.
    expect(runner.residentWeightBytes()).toBe(runner.weightBytes);
    runner.close();
  });

  it('is used where it lies in its files', () => {
    const checkpoint = readCheckpoint(converted(format));
    const source = new CheckpointWeights(checkpoint, backend, storedFormat(checkpoint));
    const model = storedModel(source, true);
    const turned = new Set(
      model.layers.map(({ attention }) => attention.keyUp).concat(model.mtp!.layer.attention.keyUp),
    );
    const files = new Set<ArrayBufferLike>();
    for (const weight of weightsOf(model)) {
      if (turned.has(weight) || (format === 'q4' && weight.n % 16 !== 0)) continue;
      for (const piece of weight.pieces.flat()) files.add(piece.codes.buffer);
    }
    checkpoint.close();
    expect(files.size).toBe(1);
  });
});
