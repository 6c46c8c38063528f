/**
 * A computation that can be left where it would wait for messages, so that another goes on in the meantime: a generator that
 * yields there. Where it never waits, or nothing else is to be done, it is run to its end.
 */
export type Steps<T> = Generator<void, T, void>;

/** Runs it without a pause. */
export const toEnd = <T>(steps: Steps<T>): T => inTurn([steps])[0]!;

/** Advances all of them, each by one step at a time and in their order, until the last has ended. @returns their results */
export function inTurn<T>(all: readonly Steps<T>[]): T[] {
  const results: T[] = [];
  try {
    for (const left = new Set(all.keys()); left.size > 0; ) {
      for (const i of left) {
        const { done, value } = all[i]!.next();
        if (!done) continue;
        results[i] = value as T;
        left.delete(i);
      }
    }
    return results;
  } finally {
    // Where one has failed, the others let go of what they hold.
    for (const steps of all) steps.return(undefined as T);
  }
}
