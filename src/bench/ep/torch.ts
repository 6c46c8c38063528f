import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExchangeCase } from './exchange.js';
import type { Hosts } from './hosts.js';
import { capture } from './launch.js';

/** The exchange written plainly in PyTorch distributed, over gloo. */
export interface TorchResult {
  seconds: number;
  version: string;
}

const SCRIPT = resolve(fileURLToPath(import.meta.url), '../../../../bench/peers/torch_exchange.py');

/** @param python folder of a Python environment @param perHost ranks of each host */
export async function torchExchange(
  python: string,
  hosts: Hosts,
  perHost: number,
  what: ExchangeCase,
): Promise<TorchResult | null> {
  const { stdout } = await capture('mpirun', [
    ...hosts.mpirun(perHost),
    ...['-x', `MASTER_ADDR=${hosts.address}`, '-x', `GLOO_SOCKET_IFNAME=${hosts.planes[0]}`],
    join(python, 'bin', 'python'),
    SCRIPT,
    JSON.stringify(what),
  ]);
  const line = stdout.split('\n').find((text) => text.startsWith('@@torch '));
  return line ? (JSON.parse(line.slice('@@torch '.length)) as TorchResult) : null;
}
