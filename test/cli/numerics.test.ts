import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeSafetensors } from '../../src/model/safetensors.js';
import { fathom, fathomJson } from './run.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-numerics-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const tensor = (name: string, shape: number[], value: (i: number) => number) => ({
  name,
  dtype: 'F32' as const,
  shape,
  data: () => {
    const length = shape.reduce((a, b) => a * b, 1);
    return new Uint8Array(Float32Array.from({ length }, (_, i) => value(i)).buffer);
  },
});

const wave = (i: number) => Math.sin(i * 1.7) * 3;
type Kinds = { kinds: { kind: string; tensors: number; values: number; formats: { format: string }[] }[] };
const compare = (...args: string[]) => fathom(['numerics', 'compare', ...args]);

describe('fathom numerics compare', () => {
  it('compares the tensors of a file and writes the figure', async () => {
    const file = path.join(folder, 'some.safetensors');
    writeSafetensors(file, [tensor('a', [4, 128], wave), tensor('b', [256], wave)]);
    const svg = path.join(folder, 'figure.svg');
    const args = ['numerics', 'compare', '--formats', 'e4m3,logfmt8', '--input', file, '--svg', svg];
    const { kinds } = (await fathomJson(args)) as unknown as Kinds;
    expect(kinds).toMatchObject([
      {
        kind: 'some.safetensors',
        tensors: 2,
        values: 768,
        formats: [{ format: 'e4m3' }, { format: 'logfmt8' }],
      },
    ]);
    expect(readFileSync(svg, 'utf8')).toMatch(/^<svg[\s\S]*logfmt8[\s\S]*<\/svg>\n$/);
  });

  it('compares what a run captured, by kind', async () => {
    const capture = path.join(folder, 'capture');
    mkdirSync(capture);
    const kinds = ['weights', 'activations', 'gradients', 'combine'];
    writeSafetensors(
      path.join(capture, 'step-1.safetensors'),
      kinds.map((kind) => tensor(`${kind}.x`, [2, 128], wave)),
    );
    writeSafetensors(path.join(capture, 'step-2.safetensors'), [tensor('weights.y', [3, 128], wave)]);
    const json = (await fathomJson(['numerics', 'compare', '--from-run', folder])) as unknown as Kinds;
    expect(json.kinds.map(({ kind, tensors }) => [kind, tensors])).toEqual([
      ['weights', 2],
      ['activations', 1],
      ['gradients', 1],
      ['combine', 1],
    ]);
    rmSync(path.join(capture, 'step-1.safetensors'));
    const { code, stderr } = await compare('--from-run', folder);
    expect([code, stderr]).toEqual([
      1,
      `fathom: ${capture} lacks tensors named activations.*, gradients.*, combine.*\n`,
    ]);
  });

  it('prints a table of synthetic values by itself', async () => {
    const { stdout } = await compare('--formats', 'mxfp4', '--gaussian', '0.02');
    expect(stdout).toMatch(/values +format +bits\/value +SQNR +largest error +bias +flushed/);
    expect(stdout).toMatch(/gaussian \(1\.05 M\) +mxfp4 +4\.250 +\d+\.\d\d dB/);
    expect(stdout).toMatch(/heavy tails/);
  });

  it('says what is wrong in one line, and leaves no figure behind', async () => {
    const file = path.join(folder, 'bad.safetensors');
    writeSafetensors(file, [tensor('a.b', [2, 64], (i) => (i === 70 ? Number.NaN : 1))]);
    const svg = path.join(folder, 'figure.svg');
    writeFileSync(svg, 'before');
    const nan = await compare('--input', file, '--svg', svg);
    expect(nan).toMatchObject({ code: 1, stdout: '' });
    expect(nan.stderr).toBe(
      'fathom: tensor a.b holds NaN at row 1, column 6; only finite values can be compared\n',
    );
    expect(readFileSync(svg, 'utf8')).toBe('before');
    expect((await compare('--formats', 'fp5')).stderr).toMatch(
      /^fathom: unknown number format "fp5"; known are .*\n$/,
    );
    expect(await compare('--formats', 'logfmt3')).toMatchObject({ code: 2 });
    expect(await compare('--formats', ',')).toMatchObject({ code: 2 });
    expect((await compare('--from-run', folder)).stderr).toMatch(
      /no captured tensors .*train it with --capture/,
    );
    expect((await compare('--input', path.join(folder, 'none'))).stderr).toMatch(/no such file/);
    expect(await compare('--gaussian', '1', '--input', file)).toMatchObject({ code: 2 });
  });
});
