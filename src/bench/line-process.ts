import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { UserError } from '../errors.js';

/** One line of a measured program: what was measured, and its largest resident memory so far. */
export interface Answer {
  values: number[];
  residentBytes: number;
}

/**
 * A program that takes a command a line and answers each with one line of JSON, as bench/peers/llama_cpp.cc does. It is idle
 * between commands, so that several can be measured in turn.
 */
export class LineProcess {
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly lines: Interface;
  private readonly waiting: { resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  private remarks = '';
  private ended = false;

  private constructor(
    readonly name: string,
    command: string,
    args: readonly string[],
  ) {
    this.child = spawn(command, args, { stdio: 'pipe' });
    this.lines = createInterface({ input: this.child.stdout });
    this.lines.on('line', (line) => {
      if (line.startsWith('{')) this.waiting.shift()?.resolve(line);
    });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.remarks = (this.remarks + text).slice(-2000);
    });
    this.child.stdin.on('error', () => {});
    this.child.on('error', (error) => this.fail(`does not start: ${error.message}`));
    this.child.on('close', (code, signal) => this.fail(`ended with ${signal ?? code}`));
  }

  /** Starts it and waits for its first line. @throws UserError when it does not come */
  static async start(
    name: string,
    command: string,
    args: readonly string[],
  ): Promise<{ process: LineProcess; greeting: Record<string, unknown> }> {
    const started = new LineProcess(name, command, args);
    const greeting = JSON.parse(await started.next()) as Record<string, unknown>;
    return { process: started, greeting };
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** @throws UserError with the program's last words when it dies */
  async ask(command: string): Promise<Answer> {
    const answer = this.next();
    this.child.stdin.write(`${command}\n`);
    return JSON.parse(await answer) as Answer;
  }

  async close(): Promise<void> {
    if (this.ended) return;
    const closed = new Promise((resolve) => this.child.once('close', resolve));
    this.child.stdin.end();
    await closed;
  }

  private next(): Promise<string> {
    if (this.ended) return Promise.reject(new UserError(`${this.name} has ended`));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  private fail(what: string): void {
    this.ended = true;
    const last = this.remarks
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .at(-1);
    const error = new UserError(`${this.name} ${what}: ${last || 'without a word'}`);
    for (const { reject } of this.waiting.splice(0)) reject(error);
  }
}
