/** How commands fail: one line on standard error, exit code 2 for wrong use and 1 for everything else. */
import { CommanderError } from 'commander';
import { ReportedError, UsageError, UserError } from '../errors.js';
import { fileError } from '../files.js';

const WRONG_USE = 2;
const FAILED = 1;

/** Help and version are thrown by commander as well, once they are printed; so is the help of an incomplete command. */
function exitCodeOfHelp(error: unknown): number | undefined {
  if (!(error instanceof CommanderError)) return undefined;
  if (error.exitCode === 0) return 0;
  return error.code === 'commander.help' ? WRONG_USE : undefined;
}

/**
 * Prints why a command failed; under `--json`, standard output gets `{"error": {"kind", "message"}}` as its one object.
 * @returns the exit code
 */
export function reportFailure(error: unknown, argv: readonly string[]): number {
  const helped = exitCodeOfHelp(error);
  if (helped !== undefined) return helped;
  if (error instanceof ReportedError) return FAILED;
  const { kind, message } = explain(error);
  const line = oneLine(message);
  process.stderr.write(`fathom: ${line}\n`);
  if (argv.includes('--debug') && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  if (argv.includes('--json'))
    process.stdout.write(`${JSON.stringify({ error: { kind, message: line } })}\n`);
  return kind === 'usage' ? WRONG_USE : FAILED;
}

type Kind = 'usage' | 'user' | 'system' | 'unexpected';

function explain(error: unknown): { kind: Kind; message: string } {
  if (error instanceof CommanderError)
    return { kind: 'usage', message: error.message.replace(/^error: /, '') };
  if (error instanceof UsageError) return { kind: 'usage', message: error.message };
  if (error instanceof UserError) return { kind: 'user', message: error.message };
  if (isSystemError(error)) return { kind: 'system', message: systemMessage(error) };
  return { kind: 'unexpected', message: `${unexpected(error)}; this is a bug, --debug shows where` };
}

const isSystemError = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';

/** What the system was asked to do, to which file, and why it did not. */
function systemMessage(error: NodeJS.ErrnoException): string {
  const explained = fileError(error.syscall!, error.path ?? 'a file or device', error);
  return (explained as Error).message;
}

const unexpected = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);

const oneLine = (message: string): string => message.trim().replaceAll(/\s*\n\s*/g, ' ');

/**
 * A reader that goes away (`fathom … | head`) ends the process without a word. Any other failure to write standard
 * output is reported; without standard error there is nobody to report to.
 */
export function guardStreams(): void {
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    process.stderr.write(`fathom: ${(fileError('write', 'standard output', error) as Error).message}\n`);
    process.exit(FAILED);
  });
}
