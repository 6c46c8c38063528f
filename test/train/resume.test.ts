import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** A run is killed and resumed through the command line, as a user would meet it. */
const CLI = path.join(import.meta.dirname, '../../dist/cli/main.js');
const STEPS = 60;
let root: string;

beforeAll(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-resume-'));
});
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));

const train = (out: string, ...flags: string[]): string[] => [
  CLI,
  'train',
  '--preset',
  'tiny',
  '--steps',
  String(STEPS),
  '--out',
  path.join(root, out),
  '--json',
  ...flags,
];

function run(out: string, ...flags: string[]): { steps: number; ended: string } {
  const child = spawnSync(process.execPath, train(out, ...flags), { encoding: 'utf8' });
  expect(child.status, child.stderr).toBe(0);
  return JSON.parse(child.stdout) as { steps: number; ended: string };
}

const file = (out: string, name: string): Buffer => fs.readFileSync(path.join(root, out, name));

/** Runs until the checkpoint of step 30 is on disk, then kills the process outright. */
async function killAfterCheckpoint(out: string): Promise<void> {
  const child = spawn(process.execPath, train(out), { stdio: 'ignore' });
  const gone = new Promise((resolve) => child.on('exit', resolve));
  const checkpoints = path.join(root, out, 'checkpoints');
  const saved = () => fs.existsSync(path.join(checkpoints, 'step-00000030'));
  while (!saved() && child.exitCode === null) await new Promise((resolve) => setImmediate(resolve));
  child.kill('SIGKILL');
  await gone;
}

describe('resume', () => {
  it('after kill -9 ends with the bytes of an uninterrupted run', async () => {
    expect(run('straight').steps).toBe(STEPS);
    await killAfterCheckpoint('killed');
    expect(fs.existsSync(path.join(root, 'killed', 'model.safetensors'))).toBe(false);
    expect(run('killed', '--resume').steps).toBe(STEPS);
    const state = path.join('checkpoints', `step-${String(STEPS).padStart(8, '0')}`, 'state.safetensors');
    for (const name of ['model.safetensors', state]) {
      expect(file('killed', name).equals(file('straight', name)), name).toBe(true);
    }
  });

  it('passes over a damaged checkpoint, names it, and goes on from the one before', () => {
    run('damaged', '--stop-after', '30');
    run('damaged', '--resume', '--stop-after', '15');
    const newest = path.join(root, 'damaged', 'checkpoints', 'step-00000045', 'state.safetensors');
    const bytes = fs.readFileSync(newest);
    bytes[bytes.length - 1]! ^= 1;
    fs.writeFileSync(newest, bytes);
    const child = spawnSync(process.execPath, train('damaged', '--resume'), { encoding: 'utf8' });
    expect(child.status, child.stderr).toBe(0);
    expect(child.stderr).toMatch(/step-00000045 is unusable.*checksum/);
    expect(child.stderr).toMatch(/resuming after step 30/);
    expect(file('damaged', 'model.safetensors').equals(file('straight', 'model.safetensors'))).toBe(true);
  });

  it('saves and exits 0 on SIGTERM', async () => {
    const child = spawn(process.execPath, train('stopped', '--steps', '100000'), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [out, err] = ['', ''];
    child.stdout.on('data', (chunk) => (out += chunk));
    child.stderr.on('data', (chunk) => {
      const before = /train \d+/.test(err);
      err += chunk;
      if (!before && /train \d+/.test(err)) child.kill('SIGTERM');
    });
    const code = await new Promise((resolve) => child.on('exit', resolve));
    expect(code, err).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ ended: 'signal' });
    expect(fs.readdirSync(path.join(root, 'stopped', 'checkpoints')).length).toBeGreaterThan(0);
  });

  it('refuses a second run in the same folder, and other settings on resume', () => {
    const again = spawnSync(process.execPath, train('straight'), { encoding: 'utf8' });
    expect([again.status, again.stderr]).toEqual([1, expect.stringMatching(/already holds a run.*--resume/)]);
    const other = spawnSync(process.execPath, train('straight', '--resume', '--seed', '9'), {
      encoding: 'utf8',
    });
    expect([other.status, other.stderr]).toEqual([2, expect.stringMatching(/seed differ/)]);
  });
});
