import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** A process that does nothing but take a core. */
export interface Neighbour {
  stop(): Promise<void>;
}

/** Starts one; it runs when this returns. */
export async function startNeighbour(): Promise<Neighbour> {
  const child = spawn(process.execPath, ['-e', "process.stdout.write('x'); for (;;);"], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'data');
  return {
    stop: async () => {
      const ended = once(child, 'close');
      child.kill('SIGKILL');
      await ended;
    },
  };
}
