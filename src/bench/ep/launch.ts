import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../../errors.js';
import { type EpOrder, type EpTaskResult, RESULT_MARK } from './order.js';

/** The built program, from src/ as from dist/. */
const RANK = resolve(fileURLToPath(import.meta.url), '../../../../dist/bench/ep/rank.js');

/** Arguments of mpirun for ranks on this host. */
export const localRanks = (ranks: number): string[] => [
  ...['-n', `${ranks}`, '--allow-run-as-root', '--oversubscribe', '--bind-to', 'none'],
];

/** Runs tasks on ranks; results in their order. @throws UserError with what mpirun said */
export async function runTasks(mpirun: readonly string[], order: EpOrder): Promise<EpTaskResult[]> {
  const { code, stdout, stderr } = await capture('mpirun', [
    ...mpirun,
    process.execPath,
    RANK,
    JSON.stringify(order),
  ]);
  const line = stdout.split('\n').find((text) => text.startsWith(RESULT_MARK));
  if (line) return JSON.parse(line.slice(RESULT_MARK.length)) as EpTaskResult[];
  throw new UserError(`mpirun ended with ${code}: ${stderr.trim().split('\n').slice(0, 6).join(' ')}`);
}

/** Runs a command to its end. @throws UserError where it does not start */
export function capture(
  command: string,
  args: readonly string[],
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((done, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const texts = { stdout: '', stderr: '' };
    child.stdout.on('data', (data: Buffer) => {
      texts.stdout += data.toString();
    });
    child.stderr.on('data', (data: Buffer) => {
      texts.stderr += data.toString();
    });
    child.on('error', () =>
      reject(
        new UserError(
          `${command} does not start; install Open MPI (Debian: sudo apt-get install openmpi-bin libopenmpi-dev) and run: npm run build:mpi`,
        ),
      ),
    );
    child.on('close', (code) => done({ code, ...texts }));
  });
}
