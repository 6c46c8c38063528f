import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { MACHINES } from '../../src/spec/machines.js';
import { startServer } from '../serve/child.js';
import { makeTinyModel, removeModel } from '../serve/tiny-model.js';
import { goldenPath } from '../text/goldens.js';
import { fathom } from './run.js';

const folder = mkdtempSync(join(tmpdir(), 'fathom-predicted-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SETTINGS = {
  model: 'tiny',
  steps: 2,
  batchSequences: 2,
  sequenceLength: 16,
  learningRate: 1e-3,
  warmupSteps: 1,
  validateEvery: 2,
  validationBatches: 1,
  checkpointEvery: 2,
  data: { validationFraction: 0.2 },
};
const cost = {
  secondsPerFlop: 0,
  secondsPerPair: 0,
  secondsPerByte: 0,
  readings: 0,
};

/** Trains two steps of `tiny` with this Machine file in the cache folder. */
async function train(name: string, machine: object) {
  writeFileSync(join(folder, 'machine.json'), JSON.stringify(machine));
  writeFileSync(join(folder, 'two.json'), JSON.stringify(SETTINGS));
  const args = ['train', '--config', join(folder, 'two.json'), '--data', goldenPath('sample.txt')];
  return fathom([...args, '--out', join(folder, name), '--threads', '1'], '', { FATHOM_CACHE: folder });
}

describe('a run on a calibrated machine', () => {
  it('ends with the predicted step beside the measured one', async () => {
    // One op is priced: a step of tiny has one RMSNorm backward and more, so that a second each gives whole seconds.
    const ops = { rmsNormBackward: { ...cost, secondsPerCall: 1 } };
    const { code, stdout } = await train('run', {
      ...MACHINES.h800,
      engine: { threads: 1, source: 'test', reading: [{ bytes: 1e6, bytesPerSecond: 1e11 }], ops },
    });
    expect(code).toBe(0);
    expect(stdout).toMatch(/\nstep +\d+(\.0)? s predicted \(1 threads\), .* measured: \+\d+/);
  });

  it('is not lost to a Machine file that lacks a constant', async () => {
    const { launchSeconds: _, ...kernels } = MACHINES.h800!.kernels;
    const { code, stdout } = await train('other', { ...MACHINES.h800, kernels });
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /not predicted: .*kernels\.launchSeconds is missing.*; write it anew with fathom calibrate/,
    );
  });
});

describe('a server on a calibrated machine', () => {
  it('ends with the predicted step of decoding beside the measured one', async () => {
    const ops = { 'inference between operations': { ...cost, secondsPerCall: 1 } };
    const machine = {
      ...MACHINES.h800,
      engine: { threads: 1, source: 'test', reading: [{ bytes: 1e6, bytesPerSecond: 1e11 }], ops },
    };
    writeFileSync(join(folder, 'machine.json'), JSON.stringify(machine));
    const model = makeTinyModel();
    process.env.FATHOM_CACHE = folder;
    const { url, child, ended } = await startServer(model, '--weights', 'bf16', '--threads', '1');
    try {
      const headers = { 'content-type': 'application/json' };
      const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
      const body = JSON.stringify({ model: data[0]!.id, prompt: 'The state of', max_tokens: 8 });
      const answer = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body });
      expect(answer.status).toBe(200);
      child.kill('SIGTERM');
      const { stdout } = await ended;
      expect(stdout).toMatch(/\ndecoding +\d+(\.\d)? s predicted \(1 threads\), .* measured: \+\d+/);
    } finally {
      delete process.env.FATHOM_CACHE;
      child.kill('SIGKILL');
      removeModel(model);
    }
  });
});
