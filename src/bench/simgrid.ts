/** SimGrid as a peer of `bench network`: the same flows on the same links, by its plain max-min model. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Flows } from '../cluster/flows.js';
import type { Transfer } from '../cluster/transfers.js';
import { UserError } from '../errors.js';
import { cacheFolder } from './random-model.js';

const SOURCE = fileURLToPath(new URL('../../bench/peers/simgrid.cc', import.meta.url));

/** Ways to post flows: an actor a flow, an actor a host, one actor for all, and one that waits for none. */
export const WAYS = ['flow', 'source', 'one', 'detached'] as const;
export type Way = (typeof WAYS)[number];

/** SimGrid's default factors bend bandwidth and latency towards TCP; all are switched off. */
const PLAIN = [
  '--cfg=network/model:CM02',
  '--cfg=network/crosstraffic:0',
  '--cfg=network/bandwidth-factor:1',
  '--cfg=network/latency-factor:1',
  '--cfg=network/weight-S:0',
  '--cfg=network/TCP-gamma:0',
  '--log=root.thresh:critical',
];

/** A run that takes longer is given up. */
const MOST_SECONDS = 300;

export interface SimgridRun {
  way: Way;
  /** Of the processor, for the run alone; the limit where it was given up. */
  seconds: number;
  finished: boolean;
  residentBytes: number;
  /** [F] seconds; empty where it was given up. */
  ends: Float64Array;
}

/** Compiles the peer where that is needed. @returns the program @throws UserError where SimGrid or a compiler is missing */
export function buildSimgrid(): string {
  const program = path.join(cacheFolder(), 'simgrid', 'simgrid_peer');
  if (existsSync(program) && statSync(program).mtimeMs > statSync(SOURCE).mtimeMs) return program;
  mkdirSync(path.dirname(program), { recursive: true });
  const flags = ['-O2', '-std=c++17', '-o', program, SOURCE, '-lsimgrid'];
  const { status, stderr } = spawnSync('g++', flags, { encoding: 'utf8' });
  if (status === 0) return program;
  const first = stderr?.split('\n').find((line) => line.includes('error')) ?? 'there is no g++';
  throw new UserError(
    `SimGrid's peer could not be compiled (Debian: apt-get install libsimgrid-dev): ${first}`,
  );
}

/** @param flows without latencies, all at once; their bytes are whole numbers */
export function runSimgrid(
  program: string,
  way: Way,
  flows: Flows,
  transfers: readonly Transfer[],
): SimgridRun {
  const input = problem(flows, transfers);
  const { status, stdout, stderr, error } = spawnSync(program, [way, ...PLAIN], {
    input,
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    timeout: 1000 * MOST_SECONDS,
  });
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT') {
    return { way, seconds: MOST_SECONDS, finished: false, residentBytes: 0, ends: new Float64Array(0) };
  }
  if (status !== 0) throw new UserError(`SimGrid ended with ${status}: ${stderr?.trim().split('\n').at(-1)}`);
  const [first, ...ends] = stdout.trim().split('\n');
  const [seconds, residentBytes] = first!.split(' ').map(Number);
  const times = Float64Array.from(ends, Number);
  return { way, seconds: seconds!, finished: true, residentBytes: residentBytes!, ends: times };
}

function problem({ capacity, offsets, links, bytes }: Flows, transfers: readonly Transfer[]): string {
  const hosts = transfers.reduce((most, { from, to }) => Math.max(most, from, to), 0) + 1;
  const lines = [`links ${capacity.length}`, ...capacity, `hosts ${hosts}`, `flows ${transfers.length}`];
  for (const [f, { from, to }] of transfers.entries()) {
    const way = links.subarray(offsets[f]!, offsets[f + 1]!);
    lines.push(`${from} ${to} ${bytes[f]} ${way.length} ${way.join(' ')}`);
  }
  return lines.join('\n');
}
