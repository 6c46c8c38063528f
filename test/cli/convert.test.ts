import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readGguf } from '../../src/infer/gguf/reader.js';
import { readCheckpoint } from '../../src/model/checkpoint.js';
import { makeFolder } from '../text/folder.js';
import { fathom, fathomJson, ROOT } from './run.js';

const goldens = path.join(ROOT, 'test/goldens');

function checkpointFolder(): string {
  const folder = makeFolder();
  for (const from of ['transformers/v3-mtp', 'gguf/tokenizer']) {
    fs.cpSync(path.join(goldens, from), folder, { recursive: true });
  }
  return folder;
}

describe('fathom convert', () => {
  it('writes a GGUF file and says where llama.cpp differs', async () => {
    const out = path.join(makeFolder(), 'model.gguf');
    const result = await fathomJson([
      'convert',
      checkpointFolder(),
      '--to',
      'gguf',
      '--dtype',
      'f16',
      '--out',
      out,
    ]);
    const { tensors } = readGguf(out);
    expect(result).toMatchObject({ file: out, bytes: fs.statSync(out).size, tensors: tensors.size });
    expect(result.notes).toContainEqual(expect.stringContaining('MTP'));
    expect(tensors.get('output.weight')?.type).toBe('f16');
  });

  it('writes a checkpoint that holds the same values', async () => {
    const [folder, out] = [checkpointFolder(), makeFolder()];
    await fathomJson(['convert', folder, '--to', 'safetensors', '--dtype', 'f32', '--out', out]);
    const [before, after] = [readCheckpoint(folder), readCheckpoint(out)];
    for (const { name } of before.parameters)
      expect(after.read(name).data, name).toEqual(before.read(name).data);
    expect(fs.existsSync(path.join(out, 'tokenizer.json'))).toBe(true);
    before.close();
    after.close();
  });

  it("writes DeepSeek's FP8 blocks, which read back within a code's step", async () => {
    const [folder, out] = [checkpointFolder(), makeFolder()];
    await fathomJson(['convert', folder, '--to', 'safetensors', '--dtype', 'fp8', '--out', out]);
    const [before, after] = [readCheckpoint(folder), readCheckpoint(out)];
    expect(after.config.quantization).toEqual({ method: 'fp8', weight_block_size: [128, 128] });
    const name = 'model.layers.0.self_attn.o_proj.weight';
    expect(after.stored.get(name)?.dtype).toBe('F8_E4M3');
    expect(after.stored.get('model.embed_tokens.weight')?.dtype).toBe('BF16');
    const [x, y] = [before.read(name).data, after.read(name).data];
    const largest = Math.max(...x.map(Math.abs));
    // E4M3 has 3 mantissa bits: half a step is 2^-4 of the value, below 2^-6 of the scale an absolute 2^-10.
    x.forEach((value, i) => {
      expect(Math.abs(value - y[i]!)).toBeLessThanOrEqual(
        Math.max(Math.abs(value) / 16, (largest / 448) * 2 ** -10) * 1.0001,
      );
    });
    before.close();
    after.close();
  });

  it.each([
    // Half a code's step of the largest of 128; of 32 values, a whole step where +8 is cut to 7, and BF16's rounding of the scale.
    ['int8', 0.5 / 127],
    ['q4', 1 / 8 + 2 ** -8],
  ] as const)('writes %s weights, which read back within a step', async (type, step) => {
    const [folder, out] = [checkpointFolder(), makeFolder()];
    await fathomJson(['convert', folder, '--to', 'safetensors', '--dtype', type, '--out', out]);
    const [before, after] = [readCheckpoint(folder), readCheckpoint(out)];
    expect(after.config.quantization).toEqual({ method: type });
    expect(after.stored.get('model.layers.1.mlp.gate.weight')?.dtype).toBe('BF16');
    for (const name of ['model.embed_tokens.weight', 'model.layers.1.mlp.experts.gate_up_proj']) {
      const [x, y] = [before.read(name).data, after.read(name).data];
      const columns = before.spec(name).shape.at(-1)!;
      x.forEach((value, i) => {
        const row = x.subarray(i - (i % columns), i - (i % columns) + columns);
        const largest = Math.max(...row.map(Math.abs));
        expect(Math.abs(value - y[i]!), `${name}[${i}]`).toBeLessThanOrEqual(largest * step * 1.0001);
      });
    }
    before.close();
    after.close();
  });

  it('refuses a type that the format has not, and leaves nothing behind', async () => {
    const out = path.join(makeFolder(), 'model.gguf');
    const { code, stderr } = await fathom([
      'convert',
      checkpointFolder(),
      '--to',
      'safetensors',
      '--dtype',
      'q8_0',
      '--out',
      out,
    ]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/q8_0 does not go with --to safetensors/);
    expect(fs.existsSync(out)).toBe(false);
  });
});
