/** Failures that every rank of a run knows of, so that each may end by itself. */
const agreed = new WeakSet<object>();

/** Marks a failure as one of all ranks. @returns it */
export function agree<T extends object>(failure: T): T {
  agreed.add(failure);
  return failure;
}

export const isAgreed = (failure: unknown): boolean =>
  typeof failure === 'object' && failure !== null && agreed.has(failure);
