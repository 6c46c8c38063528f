import type { ExchangeCase, ExchangeResult } from './exchange.js';
import { type Hosts, makeHosts } from './hosts.js';
import { runTasks } from './launch.js';

/** Hosts on planes against hosts with one link of the sum of the planes' speeds [ISCA §5.1]. */
export interface PlanesReport {
  planes: number;
  hosts: number;
  ranksPerHost: number;
  /** Of each plane's link to a host. */
  bytesPerSecond: number;
  shared: ExchangeResult;
  split: ExchangeResult;
  /** Bytes that hosts sent in all, by plane, as counted by the interfaces. */
  sentBytes: number[];
}

const [PLANES, HOSTS, PER_HOST] = [2, 2, 2];

/** @param bytesPerSecond of each plane */
export async function measurePlanes(bytesPerSecond: number, what: ExchangeCase): Promise<PlanesReport> {
  const exchange = { ...what, groups: HOSTS, groupsPerToken: HOSTS, bare: false };
  const [shared] = await on(makeHosts(HOSTS, PLANES * bytesPerSecond), exchange);
  const [split, sentBytes] = await on(makeHosts(HOSTS, bytesPerSecond, PLANES), exchange);
  return { planes: PLANES, hosts: HOSTS, ranksPerHost: PER_HOST, bytesPerSecond, shared, split, sentBytes };
}

async function on(hosts: Hosts, what: ExchangeCase): Promise<[ExchangeResult, number[]]> {
  try {
    const planes = hosts.planes.length > 1 ? hosts.planes : undefined;
    const order = { tasks: [{ kind: 'exchange' as const, what }], planes };
    const [result] = (await runTasks(hosts.mpirun(PER_HOST), order)) as [ExchangeResult];
    return [result, hosts.sentBytes()];
  } finally {
    hosts.close();
  }
}
