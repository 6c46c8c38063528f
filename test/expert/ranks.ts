import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { MPI_ADDON_PATH } from '../../src/expert/transport/addon.js';
import { connectThreads } from '../../src/expert/transport/threads.js';

const RANK = fileURLToPath(new URL('rank.mjs', import.meta.url));

/** Why tests over MPI cannot run here, or undefined. */
export const noMpi: string | undefined =
  spawnSync('mpirun', ['--version']).status !== 0
    ? 'mpirun is missing (Debian: sudo apt-get install openmpi-bin libopenmpi-dev)'
    : existsSync(MPI_ADDON_PATH)
      ? undefined
      : 'the MPI addon is not built (npm run build:mpi)';

export interface RankOptions {
  perNode?: number;
  [option: string]: unknown;
}

/** Runs a case of cases.mjs on `size` threads; results in the order of the ranks. */
export async function onThreads(size: number, name: string, options: RankOptions = {}): Promise<unknown[]> {
  const ends = connectThreads(size, options.perNode ?? size);
  return Promise.all(
    ends.map(
      (end) =>
        new Promise((resolve, reject) => {
          const ports = end.ports.filter((port) => port !== undefined);
          const worker = new Worker(RANK, { workerData: { end, name, options }, transferList: ports });
          worker.once('message', resolve).once('error', reject);
          worker.once(
            'exit',
            (code) => code !== 0 && reject(new Error(`rank ${end.rank} ended with ${code}`)),
          );
        }),
    ),
  );
}

/** Arguments of mpirun that let a test start as many ranks as it likes, as root too. */
export const MPIRUN = ['--allow-run-as-root', '--oversubscribe', '--bind-to', 'none'];

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs `mpirun -n size ...command`. */
export function mpirun(
  size: number,
  command: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Ended> {
  const child = spawn('mpirun', ['-n', `${size}`, ...MPIRUN, ...command], {
    env: { ...process.env, ...env },
  });
  const texts = { stdout: '', stderr: '' };
  child.stdout.on('data', (data: Buffer) => {
    texts.stdout += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    texts.stderr += data.toString();
  });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...texts })));
}

/** As `onThreads`, on processes of mpirun. */
export async function onMpi(size: number, name: string, options: RankOptions = {}): Promise<unknown[]> {
  const { code, stdout, stderr } = await mpirun(size, [
    process.execPath,
    RANK,
    JSON.stringify({ name, options }),
  ]);
  if (code !== 0) throw new Error(`mpirun ended with ${code}:\n${stderr}${stdout}`);
  const results: unknown[] = [];
  for (const [, line] of stdout.matchAll(/^@@(.*)$/gm)) {
    const { rank, result } = JSON.parse(line!) as { rank: number; result: unknown };
    results[rank] = result;
  }
  return results;
}
