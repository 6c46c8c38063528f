import { describe, expect, it } from 'vitest';
import { launchedRanks } from '../../src/expert/transport/addon.js';
import { ranksPerHost } from '../../src/expert/transport/mpi.js';
import { noMpi, onMpi, onThreads } from './ranks.js';

/** Ranks of every case; two nodes of two. */
const SIZE = 4;

/** What rank r has after the case `messages`, from its definition alone. */
function expectedMessages(rank: number) {
  const all = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3];
  const start = [0, 1, 3, 6][rank]!;
  const before = (rank + SIZE - 1) % SIZE;
  return {
    got: [before, before + 0.5, 0, 0],
    received: 8,
    sum: [6, 4],
    most: [3, 0],
    all,
    part: Array.from({ length: rank + 1 }, (_, i) => SIZE * (start + i) + 6),
    exchanged: [rank, 10 + rank, 20 + rank, 30 + rank],
    word: [9, 9, 9],
    members: rank % 2 ? [1, 3] : [0, 2],
    ofGroup: rank % 2 ? 4 : 2,
  };
}

const transports = [
  { name: 'threads', run: onThreads, missing: undefined },
  { name: 'MPI', run: onMpi, missing: noMpi },
];

describe.each(transports)('transport: $name', ({ run, missing }) => {
  it.skipIf(missing)(`carries messages and collectives ${missing ?? ''}`, async () => {
    const results = await run(SIZE, 'messages', { perNode: 2 });
    expect(results).toEqual([0, 1, 2, 3].map(expectedMessages));
  });

  it.skipIf(missing)(`shares memory within a node ${missing ?? ''}`, async () => {
    for (const result of (await run(SIZE, 'memory', { perNode: 2 })) as {
      ok: boolean;
      stride: number;
      length: number;
    }[]) {
      expect(result.ok).toBe(true);
      expect(result.length).toBeGreaterThanOrEqual(2 * 100);
    }
  });

  it.skipIf(missing)(`tells a node what has arrived ${missing ?? ''}`, async () => {
    const results = await run(SIZE, 'arrival', { perNode: 2 });
    expect(results.slice(2)).toContain(5);
  });
});

describe('ranks', () => {
  it('are counted as the launcher says', () => {
    expect(launchedRanks({})).toBe(1);
    expect(launchedRanks({ OMPI_COMM_WORLD_SIZE: '4' })).toBe(4);
    expect(launchedRanks({ PMI_SIZE: '2' })).toBe(2);
  });

  it('of the first host make a node', () => {
    expect(ranksPerHost(['a', 'a', 'b', 'b'])).toBe(2);
    expect(ranksPerHost(['a', 'a', 'a'])).toBe(3);
  });
});
