import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MPIRUN, noMpi, onThreads } from './ranks.js';

const CLI = path.join(import.meta.dirname, '../../dist/cli/main.js');

describe('a host without enough memory', () => {
  it('is named with its ranks before anything is allocated', async () => {
    const results = await onThreads(4, 'hostMemory');
    expect(results[0]).toMatch(
      /^UserError: ranks 2, 3 on b need at least [\d.]+ .B for weights and gradients, and [\d.]+ .B are free there/,
    );
    expect(results.slice(1)).toEqual(Array(3).fill(expect.stringMatching(/^ReportedError/)));
  });
});

/** Why no file system can be mounted for a command alone, or undefined. */
const noMount =
  noMpi ?? (spawnSync('unshare', ['-m', 'true']).status === 0 ? undefined : 'unshare -m is not allowed here');

describe.skipIf(noMount)(`little shared memory ${noMount ?? ''}`, () => {
  it('is told with its size before the first step', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-memory-'));
    const corpus = path.join(folder, 'text.txt');
    fs.writeFileSync(corpus, 'the same words again and again\n'.repeat(4000));
    const train = [CLI, 'train', '--preset', 'tiny', '--precision', 'bf16', '--data', corpus, '--out'];
    const command = ['mpirun', '-n', '2', ...MPIRUN, process.execPath, ...train, path.join(folder, 'run')];
    const mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"';
    const { status, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', mount, 'sh', ...command], {
      encoding: 'utf8',
    });
    fs.rmSync(folder, { recursive: true });
    expect(status).not.toBe(0);
    expect(stderr).toMatch(
      /^fathom: rank 0 on \S+: 2 ranks share 2 times \d+ bytes of memory, which this host does not give \(\d+ bytes are free in \/dev\/shm/m,
    );
    expect(stderr).not.toMatch(/train 1\//);
  });
});
