import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.js';
import type { Ui } from '../report/ui.js';

/** What bench/peers/torch_train.py prints. */
export interface PeerResult {
  torch: string;
  transformers: string;
  /** PyTorch's own kernels, and what oneDNN, which multiplies BF16 matrices, uses. */
  capability: string;
  onednn: string;
  threads: number;
  /** Name of the fastest variant. */
  best: string;
  secondsPerStep: number;
  tokensPerSecond: number;
  variants: Record<string, { median: number; fastest: number; slowest: number; steps: number }>;
  /** Variants for which the time budget did not last, and those that this PyTorch cannot run, with why. */
  skipped: string[];
  failed: Record<string, string>;
  peakBytes: number;
  /** Of the whole measurement. */
  seconds: number;
}

export interface PeerOptions {
  /** Content of a config.json. */
  config: object;
  sequences: number;
  length: number;
  threads: number;
  /** Seconds after which it starts no further variant. */
  budget: number;
}

const PEERS = fileURLToPath(new URL('../../bench/peers/', import.meta.url));

/** Trains the same model and batch in PyTorch. @throws UserError if PyTorch is missing or fails */
export async function runTorchPeer(options: PeerOptions, ui: Ui): Promise<PeerResult> {
  const folder = mkdtempSync(path.join(tmpdir(), 'fathom-peer-'));
  try {
    const config = path.join(folder, 'config.json');
    writeFileSync(config, JSON.stringify(options.config));
    const numbers = { sequences: options.sequences, length: options.length, threads: options.threads };
    const flags = Object.entries({ ...numbers, budget: options.budget }).flatMap(([k, v]) => [
      `--${k}`,
      `${v}`,
    ]);
    return (await runPeerScript('torch_train.py', ['--config', config, ...flags], ui)) as PeerResult;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Runs a program of bench/peers in the peers' Python.
 * @returns the JSON that it prints last
 * @throws UserError if PyTorch is missing or the program fails
 */
export async function runPeerScript(name: string, args: readonly string[], ui: Ui): Promise<unknown> {
  return JSON.parse(await output(peerPython(ui), [path.join(PEERS, name), ...args], ui));
}

/** The Python that has PyTorch: of FATHOM_PEERS, or of ~/.cache/fathom/peers, which is made the first time. */
function peerPython(ui: Ui): string {
  const folder = process.env.FATHOM_PEERS ?? path.join(homedir(), '.cache', 'fathom', 'peers');
  const python = path.join(folder, 'bin', 'python');
  if (existsSync(python)) return python;
  ui.note(`installing PyTorch and transformers in ${folder}, once`);
  const setup = spawnSync('sh', [path.join(PEERS, 'setup.sh'), folder], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (setup.status === 0) return python;
  throw new UserError(
    `PyTorch could not be installed in ${folder}; set FATHOM_PEERS to a Python environment with torch and transformers`,
  );
}

/** Last line of a program's standard output; its remarks are passed on. */
function output(command: string, args: readonly string[], ui: Ui): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [text, remark] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    createInterface({ input: child.stderr }).on('line', (line) => {
      remark = line;
      if (VARIANT_LINE.test(line)) ui.note(`PyTorch: ${line}`);
    });
    child.on('error', (error) => reject(new UserError(`${command} does not start: ${error.message}`)));
    child.on('close', (code) => {
      if (code === 0) resolve(text.trim().split('\n').at(-1)!);
      else reject(new UserError(`the PyTorch peer ended with ${code}: ${remark || 'without a word'}`));
    });
  });
}

/** A variant with its time or its failure, as against warnings of libraries. */
const VARIANT_LINE = /^(fused|transformers), /;
