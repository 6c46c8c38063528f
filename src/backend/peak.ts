import type { Backend } from '../tensor/backend.js';
import { loadAddon } from './native/addon.js';

/** Operations per second of this machine's fastest BF16 unit on all threads, measured now; undefined without the addon. */
export function peakFlops(backend: Backend): number | undefined {
  if (backend.name !== 'native') return undefined;
  const addon = loadAddon();
  return addon ? Math.max(addon.peak('dotbf16'), addon.peak('amxbf16')) : undefined;
}
