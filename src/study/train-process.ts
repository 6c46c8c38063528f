import { type ChildProcess, spawn } from 'node:child_process';

/** How a training process ended. */
export type Ending =
  | { kind: 'complete'; peakBytes: number | undefined }
  /** It was told to stop; what it did is saved where it had begun. */
  | { kind: 'stopped' }
  | { kind: 'failed'; message: string };

/** One `fathom train --json` as a child process. */
export class TrainProcess {
  readonly ending: Promise<Ending>;
  private readonly child: ChildProcess;
  private stopping = false;

  /**
   * @param command program and arguments
   * @param onLine called with each line of its progress
   */
  constructor(command: readonly string[], onLine: (line: string) => void) {
    const [program, ...args] = command;
    this.child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.ending = this.follow(onLine);
  }

  /** Undefined where it could not be started. */
  get pid(): number | undefined {
    return this.child.pid;
  }

  /** Asks it to save and end; asked again, ends it at once. */
  stop(): void {
    this.child.kill(this.stopping ? 'SIGKILL' : 'SIGINT');
    this.stopping = true;
  }

  private follow(onLine: (line: string) => void): Promise<Ending> {
    const { stdout, stderr } = this.child;
    let [output, rest, last] = ['', '', ''];
    stdout!.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    stderr!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      last = lines.findLast((line) => line !== '') ?? last;
      if (last !== '') onLine(last);
    });
    return new Promise((resolve) => {
      this.child.on('error', ({ message }) =>
        resolve({ kind: 'failed', message: `cannot start: ${message}` }),
      );
      this.child.on('close', (code, signal) => {
        const ending = endingOf(
          code,
          parse(output),
          rest || last || `it ended with ${signal ?? `code ${code}`}`,
        );
        resolve(this.stopping && ending.kind === 'failed' ? { kind: 'stopped' } : ending);
      });
    });
  }
}

/** What `fathom train --json` prints: its result, or why it failed. */
interface Output {
  ended?: string;
  peakBytes?: number;
  error?: { message: string };
}

function parse(output: string): Output {
  try {
    return (JSON.parse(output) as Output | null) ?? {};
  } catch {
    return {};
  }
}

function endingOf(code: number | null, { ended, peakBytes, error }: Output, lastLine: string): Ending {
  if (code !== 0) return { kind: 'failed', message: error?.message ?? lastLine };
  if (ended === 'complete') return { kind: 'complete', peakBytes };
  if (ended === undefined) return { kind: 'failed', message: 'it printed no result' };
  return { kind: 'stopped' };
}
