import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { MAIN, ROOT } from '../cli/run.js';

/** `fathom serve` as a process of its own. */
export interface ServerProcess {
  /** Where it listens. */
  url: string;
  child: ChildProcess;
  /** Exit code and signal, and all that was said on standard output and error. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }>;
}

/** Starts it on any free port, or as the flags say. @throws when it ends before it listens, with what it said */
export function startServer(folder: string, ...flags: string[]): Promise<ServerProcess> {
  const args = [MAIN, 'serve', folder, '--port', '0', ...flags];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  const ended = new Promise<Awaited<ServerProcess['ended']>>((resolve) =>
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  );
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      stderr += `${line}\n`;
      const url = /at (http:\S+)\/v1,/.exec(line)?.[1];
      if (url !== undefined) resolve({ url, child, ended });
    });
    void ended.then(({ code }) => reject(new Error(`fathom serve ended with ${code}: ${stderr}`)));
  });
}
