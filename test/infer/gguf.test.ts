import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { convertToGguf } from '../../src/infer/gguf/convert.js';
import { TENSOR_TYPES, type TensorTypeName } from '../../src/infer/gguf/format.js';
import { type Gguf, readGguf, readGgufTensor } from '../../src/infer/gguf/reader.js';
import { readCheckpoint } from '../../src/model/checkpoint.js';
import { SafetensorsReader } from '../../src/model/safetensors.js';
import { decodeQ4, decodeQ8, encodeQ4, encodeQ8 } from '../../src/numerics/ggml.js';

/** Goldens: scripts/goldens/gguf_goldens.py, from llama.cpp v0.5.0's converter and gguf-py. */
const GOLDENS = path.join(import.meta.dirname, '../goldens');
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-gguf-'));
afterAll(() => fs.rmSync(scratch, { recursive: true }));

/** A golden checkpoint with a tokenizer of its size. */
function checkpointFolder(
  variant: string,
  change: (config: Record<string, unknown>) => void = () => {},
): string {
  const folder = fs.mkdtempSync(path.join(scratch, `${variant}-`));
  for (const from of [`transformers/${variant}`, 'gguf/tokenizer']) {
    fs.cpSync(path.join(GOLDENS, from), folder, { recursive: true });
  }
  const file = path.join(folder, 'config.json');
  const config = JSON.parse(fs.readFileSync(file, 'utf8'));
  change(config);
  fs.writeFileSync(file, JSON.stringify(config));
  return folder;
}

function convert(folder: string, type: TensorTypeName): Gguf {
  const file = path.join(folder, 'model.gguf');
  const checkpoint = readCheckpoint(folder);
  try {
    convertToGguf(checkpoint, folder, file, { type });
  } finally {
    checkpoint.close();
  }
  return readGguf(file);
}

const metadataValue = (gguf: Gguf, key: string) => gguf.metadata.get(key)?.value;

describe('ggml blocks', () => {
  const golden = JSON.parse(fs.readFileSync(path.join(GOLDENS, 'gguf/blocks.json'), 'utf8'));
  const bytes = (name: string) => Uint8Array.from(Buffer.from(golden[name], 'base64'));
  const values = new Float32Array(bytes('values').buffer);

  it.each([
    ['q8_0', encodeQ8],
    ['q4_0', encodeQ4],
  ] as const)('%s codes are those of gguf-py', (name, encode) => {
    expect(Buffer.compare(encode(values), bytes(name))).toBe(0);
  });

  it.each([
    ['q8_0', encodeQ8, decodeQ8, 1 / 254],
    ['q4_0', encodeQ4, decodeQ4, 1 / 8],
  ] as const)('%s values are within a step of the largest of their block', (_name, encode, decode, step) => {
    const decoded = decode(encode(values));
    for (let at = 96; at < values.length; at += 32) {
      const block = values.subarray(at, at + 32);
      const largest = Math.max(...block.map(Math.abs));
      // Half a code's step (a whole one where q4_0 clips +8 to +7), and FP16's rounding of the scale, 2^-11.
      block.forEach((x, i) => {
        expect(Math.abs(x - decoded[at + i]!)).toBeLessThanOrEqual(largest * (step + 2 ** -11) * 1.0001);
      });
    }
  });
});

describe('convertToGguf', () => {
  it("writes what llama.cpp's own converter writes", () => {
    const ours = convert(checkpointFolder('v3-yarn'), 'f32');
    const theirs = readGguf(path.join(GOLDENS, 'gguf/v3-yarn.gguf'));
    // Theirs takes the gate for softmax where config.json leaves V3's sigmoid unsaid.
    const free = [
      'general.name',
      'general.size_label',
      'deepseek2.expert_gating_func',
      'tokenizer.ggml.add_sep_token',
    ];
    const pairs = ({ metadata }: Gguf) => [...metadata].filter(([key]) => !free.includes(key)).sort();
    expect(pairs(ours)).toEqual(pairs(theirs));
    expect(metadataValue(ours, 'deepseek2.expert_gating_func')).toBe(2);
    expect([...ours.tensors.keys()].sort()).toEqual([...theirs.tensors.keys()].sort());
    for (const [name, { shape, type }] of theirs.tensors) {
      expect(ours.tensors.get(name)).toMatchObject({ shape, type });
      expect(readGgufTensor(ours, name), name).toEqual(readGgufTensor(theirs, name));
    }
  });

  it('dequantises FP8 blocks', () => {
    const folder = checkpointFolder('v3-fp8');
    const gguf = convert(folder, 'f32');
    const checkpoint = readCheckpoint(folder);
    const expected = checkpoint.read('model.layers.0.self_attn.o_proj.weight');
    checkpoint.close();
    expect(readGgufTensor(gguf, 'blk.0.attn_output.weight')).toEqual(expected.data);
  });

  it('lays rotary pairs side by side and keeps rows that are not rotary', () => {
    const folder = checkpointFolder('v3-rope-halves');
    const gguf = convert(folder, 'f32');
    const c = JSON.parse(fs.readFileSync(path.join(folder, 'config.json'), 'utf8'));
    const stored = SafetensorsReader.open(folder);
    const [latent, rotary, width] = [c.kv_lora_rank, c.qk_rope_head_dim, c.hidden_size] as number[];
    const before = stored.readFloats('model.layers.0.self_attn.kv_a_proj_with_mqa.weight');
    stored.close();
    const after = readGgufTensor(gguf, 'blk.0.attn_kv_a_mqa.weight');
    const row = (matrix: Float32Array, r: number) => matrix.slice(r * width!, (r + 1) * width!);
    expect(row(after, latent! - 1)).toEqual(row(before, latent! - 1));
    for (let i = 0; i < rotary! / 2; i++) {
      expect(row(after, latent! + 2 * i)).toEqual(row(before, latent! + i));
      expect(row(after, latent! + 2 * i + 1)).toEqual(row(before, latent! + i + rotary! / 2));
    }
  });

  it('keeps vectors and gates in F32, and what is no whole block in F16', () => {
    const gguf = convert(checkpointFolder('v3-fp32'), 'q8_0');
    const types = Object.fromEntries([...gguf.tensors].map(([name, { type }]) => [name, type]));
    expect(types['blk.1.ffn_gate_inp.weight']).toBe('f32');
    expect(types['blk.1.exp_probs_b.bias']).toBe('f32');
    expect(types['output_norm.weight']).toBe('f32');
    const widths = new Map([...gguf.tensors.values()].map(({ name, shape }) => [name, shape.at(-1)!]));
    for (const [name, type] of Object.entries(types)) {
      if (/attn_[kv]_b/.test(name)) expect(type, name).toBe('bf16');
      else if (type !== 'f32') expect(type, name).toBe(widths.get(name)! % 32 === 0 ? 'q8_0' : 'f16');
    }
    expect(metadataValue(gguf, 'general.file_type')).toBe(7);
  });

  it.each<[string, string, (config: Record<string, unknown>) => void]>([
    ['v2-groups', 'group_limited_greedy', () => {}],
    ['v3-gqa', 'attention_kind is gqa', () => {}],
    ['v3-fp32', 'vocab_size in config.json', () => {}],
  ])('refuses %s: %s', (variant, message, change) => {
    const folder = checkpointFolder(variant, change);
    if (message.startsWith('vocab_size')) addToken(folder, 80);
    const file = path.join(folder, 'model.gguf');
    const checkpoint = readCheckpoint(folder);
    expect(() => convertToGguf(checkpoint, folder, file, { type: 'f32' })).toThrow(UserError);
    expect(() => convertToGguf(checkpoint, folder, file, { type: 'f32' })).toThrow(message);
    checkpoint.close();
    expect(fs.existsSync(file)).toBe(false);
  });
});

function addToken(folder: string, id: number): void {
  const file = path.join(folder, 'tokenizer.json');
  const json = JSON.parse(fs.readFileSync(file, 'utf8'));
  json.model.vocab.surplus = id;
  fs.writeFileSync(file, JSON.stringify(json));
}

describe('readGguf', () => {
  const whole = fs.readFileSync(path.join(GOLDENS, 'gguf/v3-yarn.gguf'));
  const file = path.join(scratch, 'damaged.gguf');
  const read = (bytes: Uint8Array) => {
    fs.writeFileSync(file, bytes);
    const gguf = readGguf(file);
    for (const name of gguf.tensors.keys()) readGgufTensor(gguf, name);
    return gguf;
  };

  it('reads every type back', () => {
    expect(new Set(Object.keys(TENSOR_TYPES))).toEqual(new Set(['f32', 'f16', 'bf16', 'q8_0', 'q4_0']));
    expect(read(whole).tensors.size).toBeGreaterThan(20);
  });

  it.each<[string, number[], string]>([
    ['another magic', [0, 0x46], 'does not begin with GGUF'],
    ['another version', [4, 2], 'its version is 2'],
    ['a count beyond the file', [11, 0x10], 'more than its'],
  ])('says what is wrong with %s', (_what, [at, value], message) => {
    const bytes = Uint8Array.from(whole);
    bytes[at!] = value!;
    expect(() => read(bytes)).toThrow(UserError);
    expect(() => read(bytes)).toThrow(message);
  });

  it('neither crashes nor hangs on a damaged file', () => {
    const header = whole.length - 150_000;
    const change = fc.tuple(fc.nat(header), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 8 }),
        fc.option(fc.nat(whole.length)),
        (changes, cut) => {
          const bytes = Uint8Array.from(whole);
          for (const [at, value] of changes) bytes[at] = value;
          try {
            read(cut === null ? bytes : bytes.subarray(0, cut));
          } catch (error) {
            if (!(error instanceof UserError)) throw error;
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
