import { setImmediate } from 'node:timers/promises';
import type { Ui } from '../report/ui.js';

/**
 * Works through cases one after the other with progress. Between them the event loop turns, which is when the memory of buffers is
 * given back that the one before has left.
 */
export async function inTurn<Case, Result>(
  label: string,
  ui: Ui,
  cases: readonly Case[],
  nameOf: (one: Case) => string,
  work: (one: Case) => Result | Promise<Result>,
): Promise<Result[]> {
  const progress = ui.progress(label);
  const results: Result[] = [];
  try {
    for (const one of cases) {
      progress.update({ done: results.length, total: cases.length, details: [nameOf(one)] });
      results.push(await work(one));
      await setImmediate();
    }
  } finally {
    progress.end();
  }
  return results;
}
