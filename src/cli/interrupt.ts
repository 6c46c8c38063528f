/**
 * What ends a server, and a text that is being written. `mpirun` ends its ranks itself a second after the first two, and passes
 * the third on to them.
 */
export const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGUSR2'] as const;

/**
 * Runs `work` with a signal that Ctrl-C or SIGTERM aborts, so that it ends with what is done; a second one ends the process
 * as if nobody had listened.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  for (const signal of END_SIGNALS) process.once(signal, abort);
  try {
    return await work(controller.signal);
  } finally {
    for (const signal of END_SIGNALS) process.off(signal, abort);
  }
}
