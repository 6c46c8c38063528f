import type { Backend } from '../tensor/backend.js';
import { describeWeight } from './stored.js';

/**
 * A backend that computes nothing: a step run on it touches no memory and counts what the same step on `like`
 * would take. Ops do nothing; `allocate` hands out address space that stays untouched, hence not resident.
 */
export function countingBackend(like: Backend): { backend: Backend; bytes: () => number } {
  let bytes = 0;
  const backend = new Proxy(like, {
    get(target, property) {
      if (property === 'name') return target.name;
      if (property === 'packedSizes') return target.packedSizes.bind(target);
      if (property === 'storeWeight') return described;
      if (property === 'allocate') {
        return (size: number) => {
          bytes += size;
          return new ArrayBuffer(size);
        };
      }
      // Ops that only some backends have.
      return typeof target[property as keyof Backend] === 'function' ? () => undefined : undefined;
    },
  });
  return { backend, bytes: () => bytes };
}

/** A weight of which nothing is read. */
const described: Backend['storeWeight'] = (format, k, groups) => ({
  ...describeWeight(format, k, groups),
  handle: undefined,
});
