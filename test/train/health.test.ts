import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { SILENT_UI, type Ui } from '../../src/report/ui.js';
import { TRAIN_PRESETS } from '../../src/train/config.js';
import { Health } from '../../src/train/health.js';
import { runTraining } from '../../src/train/run.js';

let root: string;
beforeAll(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-health-'));
});
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));

describe('health', () => {
  it('asks for a rollback after three bad steps in a row, and gives up after three rollbacks', () => {
    const health = new Health();
    const judge = (steps: string) => [...steps].map((step) => health.judge(step === '.'));
    expect(judge('..xx.xxx')).toEqual([...Array(7).fill('continue'), 'rollback']);
    expect(judge('xxxxxx')).toEqual(['continue', 'continue', 'rollback', 'continue', 'continue', 'rollback']);
    expect(judge('xxx')).toEqual(['continue', 'continue', 'fail']);
  });

  it('tells what is not finite, goes back to the last checkpoint and ends with one line', async () => {
    const configFile = path.join(root, 'wild.json');
    // A learning rate that makes the weights overflow in the first step.
    const config = {
      ...TRAIN_PRESETS.tiny,
      learningRate: 1e38,
      warmupSteps: 0,
      checkpointEvery: 1,
      batchSequences: 1,
    };
    fs.writeFileSync(configFile, JSON.stringify(config));
    const notes: string[] = [];
    const note = (line: string) => void notes.push(line);
    const ui: Ui = { ...SILENT_UI, note, progress: () => ({ update: () => {}, note, end: () => {} }) };
    const run = runTraining({ configFile, out: path.join(root, 'wild') }, ui);
    await expect(run).rejects.toThrow(UserError);
    await expect(run).rejects.toThrow(/does not recover/);
    const bad = /^step 2 is not counted: the gradient of model\.layers\.\d+\.\S+ is not finite/;
    expect(notes.filter((line) => bad.test(line))).toHaveLength(12);
    expect(notes.filter((line) => /back to the checkpoint of step 1/.test(line))).toHaveLength(3);
  });
});
