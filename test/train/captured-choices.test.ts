import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeSafetensors } from '../../src/model/safetensors.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { readCapturedChoices } from '../../src/train/captured-choices.js';
import { fathom, fathomJson } from '../cli/run.js';

const config = MODEL_PRESETS.tiny;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-choices-'));
  mkdirSync(path.join(folder, 'run', 'capture'), { recursive: true });
  writeFileSync(path.join(folder, 'run', 'config.json'), JSON.stringify(config));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Choices of two tokens, which say where they are from. */
const capture = (step: number, layers: readonly number[]) =>
  writeSafetensors(
    path.join(folder, 'run', 'capture', `step-${step}.safetensors`),
    layers.map((layer) => {
      const data = () => new Uint8Array(Int32Array.of(layer, step, 0, 1).buffer);
      return { name: `routing.layers.${layer}.step${step}`, dtype: 'I32' as const, shape: [2, 2], data };
    }),
  );

describe('captured choices of experts', () => {
  it('are those of the layer and step that are asked for, of the last by default', () => {
    capture(4, [1, 2]);
    capture(6, [1, 2]);
    const run = path.join(folder, 'run');
    const last = readCapturedChoices(run);
    expect(last).toMatchObject({ layer: 2, step: 6, experts: config.n_routed_experts });
    expect(last.choices).toEqual([
      [2, 6],
      [0, 1],
    ]);
    expect(readCapturedChoices(run, { layer: 1, step: 4 }).choices[0]).toEqual([1, 4]);
    expect(() => readCapturedChoices(run, { layer: 5 })).toThrow(
      /choices of layer 5; the nearest is 2, and there are 1, 2/,
    );
    expect(() => readCapturedChoices(run, { step: 5 })).toThrow(/there are 4, 6/);
    rmSync(path.join(run, 'capture'), { recursive: true });
    expect(() => readCapturedChoices(run)).toThrow(/has no choices of experts; train/);
  });

  it('are what fathom network simulates, from a run named in the scenario', async () => {
    capture(1, [0]);
    const file = path.join(folder, 'mine.json');
    const scenario = (more: object) => ({
      name: 'mine',
      network: { topology: { kind: 'star', endpoints: 2 } },
      workload: [{ kind: 'ep-dispatch', tokens: 3, capture: { run: 'run' }, ...more }],
    });
    writeFileSync(file, JSON.stringify(scenario({})));
    const { pieces } = (await fathomJson(['network', 'simulate', file])) as { pieces: { name: string }[] };
    expect(pieces[0]!.name).toBe('ep-dispatch over 2, 3 tokens a rank');
    writeFileSync(file, JSON.stringify(scenario({ choices: [[0]] })));
    expect((await fathom(['network', 'simulate', file])).stderr).toMatch(/choices are given as well/);
  });
});
