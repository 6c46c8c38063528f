import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ModelSummary } from '../../src/model/summary.js';
import { PUBLIC_MODELS } from '../../src/spec/public-models.js';
import { fathom, fathomJson, ROOT } from './run.js';

const GOLDENS = path.join(ROOT, 'test/goldens/transformers');

const inspect = async (model: string) => (await fathomJson(['inspect', model])) as unknown as ModelSummary;

describe('fathom inspect, of a preset', () => {
  it('gives the published sizes of DeepSeek-V3', async () => {
    const { parameters, cacheBytesPerToken, bytes, tensors } = await inspect('deepseek-v3');
    // 671 B in all and 37 B activated [TR §1]; 70.272 KB per token [ISCA table 1].
    expect(Math.round(parameters.total / 1e9)).toBe(671);
    expect(Math.round(parameters.active / 1e9)).toBe(37);
    expect(cacheBytesPerToken).toBe(70_272);
    // The published files hold 685 B elements [README of the model], scales of the FP8 blocks among them; the MTP
    // module has its own copies of embedding and head there.
    const elements = tensors.reduce((sum, group) => sum + group.elements, 0) + 2 * 129_280 * 7168;
    expect(Math.round(elements / 1e9)).toBe(685);
    // Nearly all is FP8: one byte an element, and four for the scale of each 128².
    expect(bytes / (parameters.total + parameters.mtp.total)).toBeCloseTo(1, 2);
  });

  it('gives the latent cache of DeepSeek-V2 and -V2-Lite', async () => {
    // (512 + 64) values of two bytes in 60 and 27 layers.
    expect((await inspect('deepseek-v2')).cacheBytesPerToken).toBe(576 * 60 * 2);
    expect((await inspect('deepseek-v2-lite')).cacheBytesPerToken).toBe(576 * 27 * 2);
  });

  it('prints sizes, parts and tensors for people', async () => {
    const { stdout } = await fathom(['inspect', 'mini']);
    expect(stdout).toMatch(/^model +mini \(deepseek_v3\)\n/);
    expect(stdout).toMatch(/parameters +\d.* M total, .* active per token/);
    expect(stdout).toMatch(
      /cache +latents, 1\.92 kB per token in BF16, 1\.16 kB in FP8, 1\.2 kB in LogFMT-8/,
    );
    expect(stdout).toMatch(
      /model\.layers\.\{1-5\}\.mlp\.experts\.\{0-31\}\.gate_proj\.weight +\[128, 256\] +BF16 +160 /,
    );
  });
});

describe('fathom inspect, of a config.json of another family', () => {
  it.each([
    ['qwen2.5-72b', 327_680, 72.7e9, 'gqa'],
    ['llama-3.1-405b', 516_096, 405.9e9, 'gqa'],
  ])('gives the cache of %s in table 1', async (name, cache, total, kind) => {
    // [ISCA table 1], and the sizes that the model pages give.
    const { cacheBytesPerToken, parameters, shape } = (await fathomJson([
      'inspect',
      name,
    ])) as unknown as ModelSummary & {
      shape: { attention: { kind: string } };
    };
    expect(cacheBytesPerToken).toBe(cache);
    expect(parameters.total / total).toBeCloseTo(1, 3);
    expect(shape.attention.kind).toBe(kind);
  });

  it('reads a file, and says what it does not know', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'fathom-inspect-'));
    const file = path.join(folder, 'config.json');
    writeFileSync(file, JSON.stringify(PUBLIC_MODELS['qwen2.5-7b'].config));
    const { stdout } = await fathom(['inspect', file]);
    expect(stdout).toMatch(/attention +GQA, 28 heads of 128, values 128; 4 key-value heads/);
    writeFileSync(file, '{"model_type": "mamba"}');
    const { code, stderr } = await fathom(['inspect', file]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/model_type/)]);
    rmSync(folder, { recursive: true });
  });
});

describe('fathom inspect, of a checkpoint', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'fathom-inspect-'));
    cpSync(path.join(GOLDENS, 'v3-fp8'), folder, { recursive: true });
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('gives the types and bytes that are stored', async () => {
    const { tensors, bytes } = await inspect(folder);
    const file = path.join(folder, 'model.safetensors');
    const header = 8 + Number(readFileSync(file).readBigUInt64LE(0));
    expect(bytes).toBe(statSync(file).size - header);
    expect(tensors.reduce((sum, group) => sum + group.bytes, 0)).toBe(bytes);
    expect(new Set(tensors.map(({ dtype }) => dtype))).toEqual(new Set(['F8_E4M3', 'BF16', 'F32']));
  });

  it('counts shards together and MTP modules apart', async () => {
    const sharded = await inspect(path.join(GOLDENS, 'v3-bf16'));
    expect(sharded.tensors.every(({ part }) => part !== 'other')).toBe(true);
    const { parameters, tensors } = await inspect(path.join(GOLDENS, 'v3-mtp'));
    const stored = (mtp: boolean) =>
      tensors
        .filter(
          (group) =>
            group.mtp === mtp && !/e_score_correction_bias|embed_tokens|shared_head\.head/.test(group.name),
        )
        .reduce((sum, group) => sum + group.elements, 0);
    expect(stored(true)).toBe(parameters.mtp.total);
    expect(stored(false)).toBe(parameters.total - parameters.byPart.embedding.total);
  });

  it('names a file that is cut short', async () => {
    truncateSync(path.join(folder, 'model.safetensors'), 1000);
    const { code, stderr } = await fathom(['inspect', folder]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^fathom: .*model\.safetensors is not a usable safetensors file: .*\n$/);
  });

  it('names an unknown field of config.json', async () => {
    const file = path.join(folder, 'config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as object;
    writeFileSync(file, JSON.stringify({ ...config, hidden_sise: 1 }));
    const { code, stderr } = await fathom(['inspect', file]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(`${file}: unknown field "hidden_sise"`)]);
  });
});
