/** A file beside a run's folder that holds the process that trains it, so that never two do. */
import fs from 'node:fs';
import { UserError } from '../errors.js';
import { withFileErrors } from '../files.js';
import { writeText } from './results.js';

/**
 * @param folder of the run
 * @throws UserError where a process is alive that trains it: that of another `fathom study run`, or one that outlived its own
 */
export function refuseIfTrained(folder: string): void {
  const file = fileOf(folder);
  if (!fs.existsSync(file)) return;
  const pid = Number(withFileErrors('read', file, () => fs.readFileSync(file, 'utf8')));
  if (!isAlive(pid)) return;
  throw new UserError(
    `process ${pid} still trains ${folder}; wait for it or end it (if that is another program, remove ${file})`,
  );
}

/** Notes that process `pid` trains the run. */
export function claimRun(folder: string, pid: number): void {
  writeText(fileOf(folder), String(pid));
}

/** The process has ended. */
export function releaseRun(folder: string): void {
  fs.rmSync(fileOf(folder), { force: true });
}

const fileOf = (folder: string): string => `${folder}.pid`;

function isAlive(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    // Somebody else's process may not be signalled, but it lives.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
