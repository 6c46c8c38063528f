import { describe, expect, it } from 'vitest';
import { inject } from '../../src/bench/ep/faults.js';
import { localRanks } from '../../src/bench/ep/launch.js';
import { noMpi } from './ranks.js';

const missing =
  noMpi ?? (process.platform === 'linux' ? undefined : 'processes are found in /proc, which Linux has');

/** Training that loses a rank: it ends, says which, leaves nothing behind, and goes on from its last checkpoint. */
describe.skipIf(missing)(`a rank that fails ${missing ?? ''}`, () => {
  it('is named when it was killed', async () => {
    const result = await inject('killed', localRanks(2), (ranks) => process.kill(ranks[1]!, 'SIGKILL'));
    expect(result).toMatchObject({ orphans: 0, resumed: true });
    expect(result.secondsToEnd).not.toBeNull();
    expect(result.message).toMatch(/rank 1 .*on node/);
  });

  it('is named when it was stopped', async () => {
    const result = await inject('stopped', localRanks(2), (ranks) => process.kill(ranks[1]!, 'SIGSTOP'));
    expect(result).toMatchObject({ orphans: 0, resumed: true });
    expect(result.message).toMatch(/^fathom: rank 0 on \S+: nothing was heard for 5 s from rank 1 on/);
  });
});
