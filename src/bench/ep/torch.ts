import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExchangeCase } from './exchange.js';
import { capture } from './launch.js';

/** The exchange written plainly in PyTorch distributed, over gloo. */
export interface TorchResult {
  seconds: number;
  version: string;
}

const SCRIPT = resolve(fileURLToPath(import.meta.url), '../../../../bench/peers/torch_exchange.py');

/** @param python folder of a Python environment @param mpirun arguments that start the ranks */
export async function torchExchange(
  python: string,
  mpirun: readonly string[],
  what: ExchangeCase,
): Promise<TorchResult | null> {
  const { stdout } = await capture('mpirun', [
    ...mpirun,
    join(python, 'bin', 'python'),
    SCRIPT,
    JSON.stringify(what),
  ]);
  const line = stdout.split('\n').find((text) => text.startsWith('@@torch '));
  return line ? (JSON.parse(line.slice('@@torch '.length)) as TorchResult) : null;
}
