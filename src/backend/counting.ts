import type { Backend } from '../tensor/backend.js';

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
      if (property === 'allocate') {
        return (size: number) => {
          bytes += size;
          return new ArrayBuffer(size);
        };
      }
      return () => undefined;
    },
  });
  return { backend, bytes: () => bytes };
}
