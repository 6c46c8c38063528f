/**
 * Files for every room: failures as one line for the user, and writing that never leaves half a file. What is
 * written goes to a temporary name beside the target, is flushed to the device, and is then renamed over it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { UserError } from './errors.js';

const REASONS: Record<string, string> = {
  ENOENT: 'no such file or folder',
  EACCES: 'permission denied; check the rights of the file and its folder',
  EPERM: 'operation not permitted',
  ENOSPC: 'no space left on the disk; free some or choose another folder',
  EDQUOT: 'the disk quota is used up; free some space or choose another folder',
  EROFS: 'the file system is read-only; choose another folder',
  EISDIR: 'it is a folder, not a file',
  ENOTDIR: 'part of its path is a file, not a folder',
  EEXIST: 'something of another kind has that name',
};

/** The UserError for a failed file operation; errors that are no file-system errors are returned as they are. */
export function fileError(verb: string, file: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (error instanceof UserError || typeof code !== 'string') return error;
  return new UserError(`cannot ${verb} ${file}: ${REASONS[code] ?? code}`);
}

/** Runs `action` and turns a file-system failure into one line for the user: "cannot read FILE: no such file". */
export function withFileErrors<T>(verb: string, file: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw fileError(verb, file, error);
  }
}

/**
 * Makes a folder and those above it that are missing. Node's own `recursive` runs for ever, eating memory, where the
 * system refuses with ENOENT to make a folder in one that exists, as /proc does.
 */
export function makeFolder(folder: string): void {
  if (fs.existsSync(folder)) return;
  makeFolder(path.dirname(folder));
  try {
    fs.mkdirSync(folder);
  } catch (error) {
    // Another process may have been quicker.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/**
 * Creates or replaces `file` with what `write` puts into the open descriptor; missing folders are made. When
 * `write` or the disk fails, the temporary file is removed, the old file stays as it was, and the error is thrown.
 */
export function writeFileAtomicallySync(file: string, write: (descriptor: number) => void): void {
  const temporary = `${file}.${process.pid}.tmp`;
  withFileErrors('write', file, () => {
    makeFolder(path.dirname(file));
    const descriptor = fs.openSync(temporary, 'w');
    try {
      fillAndClose(descriptor, write);
      fs.renameSync(temporary, file);
    } catch (error) {
      discard(temporary);
      throw error;
    }
    flushFolder(path.dirname(file));
  });
}

function fillAndClose(descriptor: number, write: (descriptor: number) => void): void {
  try {
    write(descriptor);
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** A rename survives a power failure only once its folder is on the device; Windows cannot open folders. */
function flushFolder(folder: string): void {
  if (process.platform === 'win32') return;
  const descriptor = fs.openSync(folder, 'r');
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** The same for content that is only known bit by bit, from an asynchronous source. */
export async function writeFileAtomically<T>(
  file: string,
  write: (descriptor: number) => Promise<T>,
): Promise<T> {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    makeFolder(path.dirname(file));
    const descriptor = fs.openSync(temporary, 'w');
    let result: T;
    try {
      result = await write(descriptor);
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.renameSync(temporary, file);
    return result;
  } catch (error) {
    discard(temporary);
    throw fileError('write', file, error);
  }
}

/** Removes what may not even exist; a failure here must not hide the one that led to it. */
function discard(temporary: string): void {
  try {
    fs.rmSync(temporary, { force: true });
  } catch {
    // The folder itself is not there or not writable: nothing was left behind.
  }
}

/** Reads exactly `out.length` bytes from `position`; false when the file ends before. */
export function readFully(descriptor: number, out: Uint8Array, position: number): boolean {
  for (let done = 0; done < out.length; ) {
    const count = fs.readSync(
      descriptor,
      out,
      done,
      Math.min(out.length - done, MAX_TRANSFER),
      position + done,
    );
    if (count === 0) return false;
    done += count;
  }
  return true;
}

/** Writes all of `bytes` at `position`; a single write call may take less than it is given. */
export function writeFully(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, MAX_TRANSFER);
    done += fs.writeSync(descriptor, bytes, done, length, position + done);
  }
}

/** Largest single transfer: Linux moves at most 0x7ffff000 bytes per call [read(2)], Node below 2 GiB. */
const MAX_TRANSFER = 1 << 30;

/** Parses a JSON file. @throws UserError when it cannot be read or is not JSON */
export function readJsonFile(file: string): unknown {
  const text = withFileErrors('read', file, () => fs.readFileSync(file, 'utf8'));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${file} is not valid JSON: ${(error as Error).message}`);
  }
}
