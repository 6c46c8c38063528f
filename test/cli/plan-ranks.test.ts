import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { mpirun, noMpi } from '../expert/ranks.js';
import { fathom } from './run.js';

const CLI = join(import.meta.dirname, '../../dist/cli/main.js');
const SEARCH = ['plan', 'search', '--model', 'llama-3.1-8b', '--nodes', '2', '--batch', '64', '--json'];

describe.skipIf(noMpi)(`fathom plan search over MPI ${noMpi ?? ''}`, () => {
  it('finds on three ranks what one process finds, and rank 0 alone speaks', async () => {
    const [alone, ranks] = await Promise.all([
      fathom([...SEARCH, '--threads', '1']),
      mpirun(3, [process.execPath, CLI, ...SEARCH, '--threads', '2']),
    ]);
    expect(ranks.code, ranks.stderr).toBe(0);
    const found = JSON.parse(ranks.stdout) as { ranked: unknown[]; predicted: number };
    expect(found.ranked.length).toBeGreaterThan(5);
    expect(found).toEqual(JSON.parse(alone.stdout));
  });

  it('says once what is wrong with the system', async () => {
    const { code, stderr } = await mpirun(2, [process.execPath, CLI, ...SEARCH, '--machine', 'h900']);
    expect(code).not.toBe(0);
    expect(stderr.match(/"h900" is not known/g)).toHaveLength(1);
  });
});
