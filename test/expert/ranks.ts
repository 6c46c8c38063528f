import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

/**
 * As `onThreads`, on processes of mpirun. Each rank leaves its result in a file: mpirun forwards what ranks print
 * in pieces, and the pieces of two ranks can mix within a line.
 */
export async function onMpi(size: number, name: string, options: RankOptions = {}): Promise<unknown[]> {
  const folder = mkdtempSync(join(tmpdir(), 'fathom-ranks-'));
  try {
    const argument = JSON.stringify({ name, options, folder });
    const { code, stdout, stderr } = await mpirun(size, [process.execPath, RANK, argument]);
    if (code !== 0) throw new Error(`mpirun ended with ${code}:\n${stderr}${stdout}`);
    return Array.from({ length: size }, (_, rank) =>
      JSON.parse(readFileSync(join(folder, `${rank}.json`), 'utf8')),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
