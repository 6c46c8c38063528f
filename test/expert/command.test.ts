import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mpirun, noMpi } from './ranks.js';

/** `mpirun … fathom train` as a user meets it. */
const CLI = path.join(import.meta.dirname, '../../dist/cli/main.js');
const STEPS = 8;
let root: string;

beforeAll(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-ranks-'));
  const sentence = (i: number) => `${i} is ${i % 7} more than seven times ${Math.floor(i / 7)}.`;
  const text = Array.from({ length: 4000 }, (_, i) => sentence(i)).join('\n\n');
  fs.writeFileSync(path.join(root, 'text.txt'), text);
});
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));

const arguments_ = (out: string, flags: readonly string[]): string[] => [
  CLI,
  'train',
  '--out',
  path.join(root, out),
  '--data-cache',
  path.join(root, 'cache'),
  '--json',
  ...flags,
];
const fresh = (): string[] => [
  ...['--preset', 'tiny', '--precision', 'fp32', '--steps', `${STEPS}`],
  ...['--data', path.join(root, 'text.txt')],
];

const onRanks = (ranks: number, out: string, ...flags: string[]) =>
  mpirun(ranks, [process.execPath, ...arguments_(out, flags)]);

interface Result {
  steps: number;
  loss: { validation: number };
  ranks?: { traffic: { acrossPayloadBytes: number } };
}

const alone = (out: string, ...flags: string[]): Result => {
  const child = spawnSync(process.execPath, arguments_(out, flags), { encoding: 'utf8' });
  expect(child.status, child.stderr).toBe(0);
  return JSON.parse(child.stdout) as Result;
};

describe.skipIf(noMpi)(`fathom train over MPI ${noMpi ?? ''}`, () => {
  it('stops on four ranks, goes on on two and ends on one, as one process would', async () => {
    const straight = alone('straight', ...fresh());
    const four = await onRanks(4, 'ranks', ...fresh(), '--stop-after', '4', '--ranks-per-node', '2');
    expect(four.code, four.stderr).toBe(0);
    const result = JSON.parse(four.stdout) as Result;
    expect(result.steps).toBe(4);
    expect(result.ranks!.traffic.acrossPayloadBytes).toBeGreaterThan(0);
    const two = await onRanks(2, 'ranks', '--resume', '--stop-after', '2');
    expect(two.code, two.stderr).toBe(0);
    expect(two.stderr).toContain('resuming after step 4');
    const one = alone('ranks', '--resume');
    expect(one.steps).toBe(STEPS);
    // FP32 in another order may change which expert a token near the border goes to.
    expect(Math.abs(one.loss.validation / straight.loss.validation - 1)).toBeLessThan(1e-4);
  });

  it.each([
    {
      ranks: 2,
      flags: ['--expert-parallel', '3'],
      message: '--expert-parallel 3 does not divide the 2 ranks',
    },
    { ranks: 3, flags: ['--expert-parallel', '3'], message: '3 ranks do not divide the 8 sequences' },
    {
      ranks: 8,
      flags: ['--overlap'],
      message: 'an even number of sequences of a micro-batch on each rank, not 1',
    },
    { ranks: 2, flags: ['--wire', 'fp7'], message: 'unknown wire format "fp7"' },
    { ranks: 2, flags: ['--nodes-limit', '2'], message: '--nodes-limit 2 exceeds the 1 nodes' },
    { ranks: 3, flags: ['--ranks-per-node', '2'], message: '3 ranks are no whole number of nodes of 2' },
  ])('refuses $flags on $ranks ranks in one line', async ({ ranks, flags, message }) => {
    const { code, stderr, stdout } = await onRanks(ranks, 'refused', ...fresh(), ...flags);
    expect(code).not.toBe(0);
    expect(stderr).toContain(message);
    expect(stderr.match(/^fathom: /gm)).toHaveLength(1);
    expect(JSON.parse(stdout)).toHaveProperty('error.message');
    expect(fs.existsSync(path.join(root, 'refused', 'run.json'))).toBe(false);
  });

  it('refuses ranks with different settings', async () => {
    const command = (seed: string) => [
      process.execPath,
      ...arguments_('differ', [...fresh(), '--seed', seed]),
    ];
    const { code, stderr } = await mpirun(1, [...command('1'), ':', '-n', '1', ...command('2')]);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/the training configuration of rank 1 on \S+ differs from that of rank 0/);
  });
});
