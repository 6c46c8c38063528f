import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Random } from '../../numerics/random.js';
import { type Hosts, makeHosts } from './hosts.js';
import { localRanks } from './launch.js';

/** What happened to one rank or link, and how the run met it. */
export interface FaultResult {
  fault: string;
  /** From the fault to the end of every process; null where the run did not end within two minutes. */
  secondsToEnd: number | null;
  /** The line that names the rank and its host. */
  message: string | null;
  /** Ranks still running five seconds after the end. */
  orphans: number;
  /** Whether `--resume` went on from a checkpoint; null where it was not tried. */
  resumed: boolean | null;
}

/** Silence after which a rank is lost, in these runs. */
export const LOST_AFTER_SECONDS = 5;
const GIVE_UP_MS = 120_000;
const SETTLE_MS = 5000;
/** The built command line, from src/ as from dist/. */
export const CLI = resolve(fileURLToPath(import.meta.url), '../../../../dist/cli/main.js');

/** Kills a rank, stops one, and, where hosts can be made, cuts a link, each in a run of training of its own. */
export async function measureFaults(links: boolean): Promise<FaultResult[]> {
  const results = [
    await inject('a rank killed (kill -9)', localRanks(4), (ranks) => process.kill(ranks[1]!, 'SIGKILL')),
    await inject('a rank stopped', localRanks(4), (ranks) => process.kill(ranks[2]!, 'SIGSTOP')),
  ];
  if (!links) return results;
  const hosts: Hosts = makeHosts(2, 100e6);
  try {
    const cut = () => hosts.link(1, false);
    results.push(await inject('a link cut', hosts.mpirun(2), cut));
  } finally {
    hosts.close();
  }
  return results;
}

/** Trains `tiny` until something strikes. @param strike is told the processes of the ranks once the run has a checkpoint */
export async function inject(
  fault: string,
  mpirun: readonly string[],
  strike: (ranks: number[]) => void,
): Promise<FaultResult> {
  const out = mkdtempSync(join(tmpdir(), 'fathom-fault-'));
  const train = [CLI, 'train', '--out', out, '--lost-after', `${LOST_AFTER_SECONDS}`];
  const corpus = join(out, 'text.txt');
  writeFileSync(corpus, words());
  const run = ['--preset', 'tiny', '--steps', '100000', '--precision', 'bf16', '--data', corpus];
  const child = spawn('mpirun', [...mpirun, process.execPath, ...train, ...run], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const text: string[] = [];
  child.stderr!.on('data', (data: Buffer) => text.push(data.toString()));
  try {
    await untilCheckpoint(child, out);
    const ranks = ranksOf(out);
    const started = performance.now();
    strike(ranks);
    const ended = await endOf(child);
    const secondsToEnd = ended ? (performance.now() - started) / 1000 : null;
    const orphans = await remaining(out);
    for (const pid of ranksOf(out)) process.kill(pid, 'SIGKILL');
    return { fault, secondsToEnd, message: telling(text.join('')), orphans, resumed: await resumes(train) };
  } finally {
    child.kill('SIGKILL');
    rmSync(out, { recursive: true, force: true });
  }
}

/** Text that is quickly tokenised: 40,000 words of few letters. */
export function words(): string {
  const random = new Random(1);
  const word = () =>
    Array.from({ length: 2 + random.below(5) }, () => 'etaoinshr'[random.below(9)]!).join('');
  return Array.from({ length: 40_000 }, (_, i) => (i % 12 === 11 ? `${word()}.\n` : word())).join(' ');
}

async function untilCheckpoint(child: ChildProcess, out: string): Promise<void> {
  const saved = () => {
    try {
      return readdirSync(join(out, 'checkpoints')).some((name) => /^step-\d+$/.test(name));
    } catch {
      return false;
    }
  };
  while (!saved() && child.exitCode === null) await new Promise((go) => setTimeout(go, 50));
}

function endOf(child: ChildProcess): Promise<boolean> {
  if (child.exitCode !== null) return Promise.resolve(true);
  return new Promise((done) => {
    const limit = setTimeout(() => done(false), GIVE_UP_MS);
    child.once('close', () => {
      clearTimeout(limit);
      done(true);
    });
  });
}

/** Ranks that still run some seconds after mpirun has ended: those of a host that was cut off notice it by themselves. */
async function remaining(out: string): Promise<number> {
  for (let waited = 0; waited < SETTLE_MS && ranksOf(out).length > 0; waited += 200) {
    await new Promise((go) => setTimeout(go, 200));
  }
  return ranksOf(out).length;
}

/** Processes of the run in `out`, by rank (Linux). */
function ranksOf(out: string): number[] {
  const found = readdirSync('/proc').flatMap((name) => {
    try {
      const pid = Number(name);
      if (!pid || !readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`--out\0${out}\0`)) return [];
      const rank = /OMPI_COMM_WORLD_RANK=(\d+)/.exec(readFileSync(`/proc/${pid}/environ`, 'utf8'));
      return rank ? [{ pid, rank: Number(rank[1]) }] : [];
    } catch {
      return [];
    }
  });
  return found.sort((a, b) => a.rank - b.rank).map(({ pid }) => pid);
}

/** The line of fathom, or of mpirun, that names a rank. */
function telling(text: string): string | null {
  const lines = text.split('\n');
  const ours = lines.find((line) => /^fathom: .*rank \d+ on/.test(line));
  return (
    ours ?? lines.find((line) => /(process rank \d+|Remote daemon).* on node/.test(line))?.trim() ?? null
  );
}

/** Whether the run goes on, on two ranks of this host, from its last checkpoint. */
async function resumes(train: readonly string[]): Promise<boolean> {
  const child = spawn(
    'mpirun',
    [...localRanks(2), process.execPath, ...train, '--resume', '--stop-after', '2'],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let text = '';
  child.stderr.on('data', (data: Buffer) => {
    text += data.toString();
  });
  await new Promise((done) => child.once('close', done));
  return child.exitCode === 0 && /resuming after step \d+/.test(text);
}
