import { UserError } from '../errors.js';
import type { Backend } from '../tensor/backend.js';
import { addonProblem, loadAddon } from './native/addon.js';
import { nativeBackend } from './native/index.js';
import { referenceBackend } from './reference/index.js';

export type BackendName = 'native' | 'reference' | 'auto';

let noticed = false;

/**
 * The backend of that name; `auto` is native where the addon is built, else the reference with a line on stderr.
 * @param threads of the native backend; all CPUs that this process may use if absent
 * @throws UserError if `native` is asked for and missing, or `threads` is not a positive integer
 */
export function selectBackend(name: BackendName, threads?: number): Backend {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 1024)) {
    throw new UserError(`threads is ${threads}: give a whole number from 1 to 1024`);
  }
  if (name === 'reference') return referenceBackend;
  const addon = loadAddon();
  if (addon) return nativeBackend(addon, threads);
  if (name === 'native') {
    throw new UserError(`no native backend: ${addonProblem()}; build it with: npm run build:native`);
  }
  notice(addonProblem());
  return referenceBackend;
}

/** Once per process: the slow backend is running, and why. */
function notice(reason: string): void {
  if (!noticed) {
    process.stderr.write(
      `fathom: using the slow reference backend (${reason}); to get the fast one run: npm run build:native\n`,
    );
  }
  noticed = true;
}
