import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { type Checkpoint, readCheckpoint, writeCheckpoint } from '../../src/model/checkpoint.js';
import {
  SafetensorsReader,
  type StoredTensor,
  type TensorToWrite,
  writeSafetensorsFolder,
} from '../../src/model/safetensors.js';
import { E4M3 } from '../../src/numerics/minifloat.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { Tensor } from '../../src/tensor/tensor.js';

const GOLDENS = path.join(import.meta.dirname, '../goldens/transformers');
const VARIANTS = fs.readdirSync(GOLDENS);
const golden = (variant: string) => path.join(GOLDENS, variant);

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-checkpoint-'));
afterAll(() => fs.rmSync(root, { recursive: true }));

function withCheckpoint<T>(folder: string, use: (checkpoint: Checkpoint) => T): T {
  const checkpoint = readCheckpoint(folder);
  try {
    return use(checkpoint);
  } finally {
    checkpoint.close();
  }
}

/** Name → type, shape and bytes of everything in a folder's weights. */
function contents(folder: string): Map<string, [string, readonly number[], string]> {
  const reader = SafetensorsReader.open(folder);
  const entries = [...reader.tensors.values()].map(
    ({ name, dtype, shape }) =>
      [name, [dtype, shape, Buffer.from(reader.read(name)).toString('base64')]] as const,
  );
  reader.close();
  return new Map(entries.map(([name, [dtype, shape, bytes]]) => [name, [dtype, shape, bytes]]));
}

const writeCopy = (from: string, to: string, dtype: 'bf16' | 'f32', maxShardBytes?: number) =>
  withCheckpoint(from, (c) => {
    writeCheckpoint(to, c.config, (name) => c.read(name), {
      dtype,
      ...(maxShardBytes ? { maxShardBytes } : {}),
    });
    return c.config;
  });

/** A copy of a golden checkpoint with tensors removed, replaced or added. */
function altered(
  name: string,
  variant: string,
  change: (tensors: Map<string, TensorToWrite>, config: Record<string, unknown>) => void,
): string {
  const folder = path.join(root, name);
  const reader = SafetensorsReader.open(golden(variant));
  const copy = (t: StoredTensor): TensorToWrite => ({ ...t, data: () => reader.read(t.name) });
  const tensors = new Map([...reader.tensors.values()].map((t) => [t.name, copy(t)]));
  const config = JSON.parse(fs.readFileSync(path.join(golden(variant), 'config.json'), 'utf8'));
  change(tensors, config);
  writeSafetensorsFolder(folder, [...tensors.values()]);
  fs.writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config));
  reader.close();
  return folder;
}

const zeros = (name: string, dtype: 'F32' | 'I32', shape: number[]): TensorToWrite => ({
  name,
  dtype,
  shape,
  data: () => new Uint8Array(4 * shape.reduce((n, d) => n * d, 1)),
});

describe('checkpoints of transformers', () => {
  it.each(VARIANTS.filter((v) => v !== 'v3-fp8'))(
    '%s is written back tensor by tensor as it was',
    (variant) => {
      const dtype = variant.endsWith('bf16') ? 'bf16' : 'f32';
      const copy = path.join(root, variant);
      const config = writeCopy(golden(variant), copy, dtype);
      expect(contents(copy)).toEqual(contents(golden(variant)));
      const json = JSON.parse(fs.readFileSync(path.join(copy, 'config.json'), 'utf8'));
      expect(parseModelConfig(json)).toEqual(config);
    },
  );

  it('come in shards', () => {
    expect(fs.existsSync(path.join(golden('v3-bf16'), 'model.safetensors.index.json'))).toBe(true);
    const copy = path.join(root, 'sharded');
    writeCopy(golden('v3-fp32'), copy, 'f32', 40_000);
    expect(fs.readdirSync(copy).filter((file) => file.startsWith('model-')).length).toBeGreaterThan(3);
    expect(contents(copy)).toEqual(contents(golden('v3-fp32')));
  });

  it('have experts and MLPs fused: gate above up, expert by expert', () => {
    const raw = SafetensorsReader.open(golden('v3-fp32'));
    withCheckpoint(golden('v3-fp32'), (c) => {
      const experts = c.read('model.layers.1.mlp.experts.gate_up_proj');
      const [, twoI, d] = experts.shape as [number, number, number];
      const up = raw.readFloats('model.layers.1.mlp.experts.5.up_proj.weight');
      const from = (5 * twoI + twoI / 2) * d;
      expect(experts.data.subarray(from, from + up.length)).toEqual(up);
      const dense = c.read('model.layers.0.mlp.gate_up_proj.weight');
      expect(dense.data.subarray(0, dense.size / 2)).toEqual(
        raw.readFloats('model.layers.0.mlp.gate_proj.weight'),
      );
      const down = c.read('model.layers.1.mlp.experts.down_proj');
      const last = raw.readFloats('model.layers.1.mlp.experts.7.down_proj.weight');
      expect(down.data.subarray(down.size - last.length)).toEqual(last);
    });
    raw.close();
  });

  it('may have experts fused on disk', () => {
    const name = 'model.layers.1.mlp.experts.gate_up_proj';
    const fused = withCheckpoint(golden('v3-fp32'), (c) => c.read(name));
    const folder = altered('fused', 'v3-fp32', (tensors) => {
      for (const key of tensors.keys()) if (/experts\.\d+\.(gate|up)_proj/.test(key)) tensors.delete(key);
      tensors.set(name, { name, dtype: 'F32', shape: fused.shape, data: () => bytesOf(fused) });
    });
    withCheckpoint(folder, (c) => expect(c.read(name)).toEqual(fused));
  });

  it('may be asked for as bf16: stored bits, or rounded', () => {
    const name = 'model.layers.1.mlp.experts.down_proj';
    const [stored, values] = withCheckpoint(golden('v3-bf16'), (c) => [c.readBf16(name), c.read(name)]);
    const copy = path.join(root, 'as-f32');
    writeCopy(golden('v3-bf16'), copy, 'f32');
    withCheckpoint(copy, (c) => {
      expect(c.read(name)).toEqual(values);
      expect(c.readBf16(name)).toEqual(stored);
    });
  });
});

const bytesOf = ({ data }: Tensor) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

describe('FP8 checkpoints as DeepSeek publishes them', () => {
  const name = 'model.layers.0.mlp.down_proj.weight'; // [136, 144]: blocks of 128 and a border on both sides

  it('are dequantised block by block', () => {
    const raw = SafetensorsReader.open(golden('v3-fp8'));
    const codes = raw.read(name);
    const scales = raw.readFloats(`${name}_scale_inv`);
    const ours = withCheckpoint(golden('v3-fp8'), (c) => c.read(name));
    for (const [row, column, block] of [
      [0, 0, 0],
      [127, 127, 0],
      [127, 128, 1],
      [128, 127, 2],
      [135, 143, 3],
    ] as const) {
      const at = row * 144 + column;
      expect(ours.data[at]).toBe(Math.fround(E4M3.decode(codes[at]!) * scales[block]!));
    }
    raw.close();
  });

  it.each<[string, (t: Map<string, TensorToWrite>) => void, RegExp]>([
    ['no scales', (t) => t.delete(`${name}_scale_inv`), /has type F8_E4M3 but there is no .*_scale_inv/],
    [
      'scales of another block size',
      (t) => t.set(`${name}_scale_inv`, zeros(`${name}_scale_inv`, 'F32', [2, 1])),
      /expected F32 \[2,2\] for blocks of 128x128/,
    ],
    [
      'integer scales',
      (t) => t.set(`${name}_scale_inv`, zeros(`${name}_scale_inv`, 'I32', [2, 2])),
      /is I32 \[2,2\], expected F32/,
    ],
  ])('are refused with %s', (what, change, message) => {
    expect(() => readCheckpoint(altered(what, 'v3-fp8', change))).toThrow(message);
  });
});

describe('what does not fit', () => {
  const q = 'model.layers.0.self_attn.q_a_proj.weight';

  it.each<[string, (t: Map<string, TensorToWrite>, c: Record<string, unknown>) => void, RegExp]>([
    [
      'a missing tensor',
      (t) => t.delete(q),
      /lacks tensor model\.layers\.0\.self_attn\.q_a_proj\.weight, which config\.json asks for/,
    ],
    [
      'missing tensors',
      (_t, c) => {
        c.num_hidden_layers = 3;
      },
      /lacks tensor model\.layers\.2\.\S+ and \d+ more/,
    ],
    [
      'a tensor too many',
      (t) => t.set('model.extra', zeros('model.extra', 'F32', [1])),
      /tensor model\.extra has no place/,
    ],
    [
      'layers too many',
      (_t, c) => {
        c.num_hidden_layers = 1;
      },
      /\(and \d+ more\) has no place .* check .*num_hidden_layers/,
    ],
    [
      'another shape',
      (t) => t.set(q, zeros(q, 'F32', [24, 47])),
      /q_a_proj\.weight has shape \[24,47\] but config\.json makes it \[24,48\]/,
    ],
    ['another rank', (t) => t.set(q, zeros(q, 'F32', [24 * 48])), /has shape \[1152\] but/],
    [
      'integers',
      (t) => t.set(q, zeros(q, 'I32', [24, 48])),
      /q_a_proj\.weight has type I32; weights must be/,
    ],
    [
      'a misspelt field',
      (_t, c) => {
        c.hiden_size = 3;
      },
      /config\.json: unknown field "hiden_size"/,
    ],
  ])('%s is refused with its name', (what, change, message) => {
    const folder = altered(what, 'v3-fp32', change);
    expect(() => readCheckpoint(folder)).toThrow(message);
    expect(() => readCheckpoint(folder)).toThrow(UserError);
    expect(() => readCheckpoint(folder)).toThrow(folder);
  });

  it('a folder without config.json, or with one that is not JSON, is refused', () => {
    const folder = fs.mkdtempSync(path.join(root, 'config-'));
    expect(() => readCheckpoint(folder)).toThrow(/cannot read .*config\.json: no such file/);
    fs.writeFileSync(path.join(folder, 'config.json'), '{');
    expect(() => readCheckpoint(folder)).toThrow(/config\.json is not valid JSON/);
  });

  it('copies of shared weights and rotary frequencies are accepted', () => {
    const folder = altered('copies', 'v3-mtp', (tensors) => {
      for (const extra of [
        '1.embed_tokens.weight',
        '1.shared_head.head.weight',
        '0.self_attn.rotary_emb.inv_freq',
      ]) {
        tensors.set(extra, zeros(`model.layers.${extra}`, 'F32', [80, 48]));
      }
    });
    withCheckpoint(folder, (c) => expect(c.notes).toEqual([]));
    const tied = altered('tied', 'v3-one-group', (t) =>
      t.set('lm_head.weight', zeros('lm_head.weight', 'F32', [80, 48])),
    );
    withCheckpoint(tied, (c) => expect(c.parameters.some((p) => p.name === 'lm_head.weight')).toBe(false));
  });

  it('MTP modules that transformers dropped on saving are noted, half a module is refused', () => {
    const drop = (keep: RegExp) => (tensors: Map<string, TensorToWrite>) => {
      for (const key of tensors.keys())
        if (/^model\.layers\.1\./.test(key) && !keep.test(key)) tensors.delete(key);
    };
    withCheckpoint(altered('no-mtp', 'v3-mtp', drop(/never/)), (c) => {
      expect(c.config.num_nextn_predict_layers).toBe(0);
      expect(c.notes).toHaveLength(1);
    });
    expect(() => readCheckpoint(altered('half-mtp', 'v3-mtp', drop(/self_attn/)))).toThrow(
      /lacks tensor model\.layers\.1/,
    );
  });
});

describe('writing', () => {
  it('leaves the old checkpoint whole when it fails half-way', () => {
    const folder = path.join(root, 'half');
    writeCopy(golden('v3-fp32'), folder, 'f32');
    const before = contents(folder);
    withCheckpoint(golden('v3-fp32'), (c) => {
      const failing = (name: string) => {
        if (name === 'model.norm.weight') throw new Error('lost');
        return Tensor.zeros(c.spec(name).shape, 'f32');
      };
      expect(() => writeCheckpoint(folder, c.config, failing, { dtype: 'f32' })).toThrow('lost');
    });
    expect(contents(folder)).toEqual(before);
    expect(fs.readdirSync(folder).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
    ]);
  });

  it('keeps float fields floats in config.json, as transformers 5 demands', () => {
    const folder = path.join(root, 'floats');
    withCheckpoint(golden('v2-fp32'), (c) =>
      writeCheckpoint(folder, c.config, (name) => c.read(name), { dtype: 'bf16' }),
    );
    const text = fs.readFileSync(path.join(folder, 'config.json'), 'utf8');
    expect(text).toContain('"routed_scaling_factor": 1.0,');
    expect(text).toContain('"torch_dtype": "bfloat16"');
    expect(JSON.parse(text).architectures).toEqual(['DeepseekV2ForCausalLM']);
  });

  // Set FATHOM_PYTHON to a Python with torch and transformers to run it.
  it.skipIf(!process.env.FATHOM_PYTHON)('loads in transformers without missing or unexpected keys', () => {
    for (const variant of ['v3-mtp', 'v3-yarn-mscale', 'v2-groups']) {
      const folder = path.join(root, `python-${variant}`);
      writeCopy(golden(variant), folder, 'f32');
      const script = path.join(import.meta.dirname, '../../scripts/load_in_transformers.py');
      const run = spawnSync(process.env.FATHOM_PYTHON!, [script, folder, '--tokens', '3,4,5'], {
        encoding: 'utf8',
      });
      expect(run.status, run.stderr).toBe(0);
      expect(JSON.parse(run.stdout)).toMatchObject({ missing: [], unexpected: [], mismatched: [] });
    }
  });
});
