import { beforeAll, describe, it } from 'vitest';
import { addonProblem, type InstructionSet, loadAddon } from '../../src/backend/native/addon.js';
import { nativeBackend } from '../../src/backend/native/index.js';
import { conformance } from './conformance.js';

/** Instruction-set levels, ascending: a CPU that runs one runs all before it. */
const LEVELS: readonly InstructionSet[] = ['portable', 'avx2', 'avx512', 'amx'];

const addon = loadAddon();

if (addon) {
  const { best, threads } = addon.info();
  // More threads than small inputs have work for, and an odd number of them.
  const counts = [3, 1];
  for (const level of LEVELS.slice(0, LEVELS.indexOf(best) + 1)) {
    for (const count of level === best ? counts : counts.slice(0, 1)) {
      describe(`${level}, ${count} threads`, () => {
        beforeAll(() => {
          addon.setThreads(count);
          return () => addon.setThreads(threads);
        });
        conformance('native', nativeBackend(addon, undefined, level));
      });
    }
  }
} else {
  console.warn(`native backend not tested: ${addonProblem()}`);
  describe.skip('native', () => it(addonProblem(), () => {}));
}
