import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UserError } from '../../errors.js';
import { median } from '../measure.js';
import { CLI, words } from './faults.js';
import { type Hosts, makeHosts } from './hosts.js';

/** A run of training that went on by itself while a link was cut and restored. */
export interface CutResult {
  cut: string;
  /** Medians of a step's seconds before the cut, while it lasted (null where no step ended), and afterwards. */
  beforeSeconds: number;
  duringSeconds: number | null;
  afterSeconds: number;
  /** The longest step, which met the cut. */
  longestSeconds: number;
  /** Bytes sent over each plane while it lasted. */
  sentBytes: number[];
  /** Whether losses are those of an undisturbed run, bit for bit. */
  sameLosses: boolean;
  /** What the run said of it. */
  said: string | null;
}

const [HOSTS, PER_HOST, RATE] = [2, 2, 50e6];
const STEPS = 75;
/** Steps after which the link is cut. */
const CUT_AT = 20;
/** The plane is back this many steps later, the only link after some seconds, as no step ends without it. */
const CUT_STEPS = 20;
const CUT_SECONDS = 3;

/** One of two planes cut for some steps, and the only link cut for some seconds. */
export async function measureCuts(): Promise<CutResult[]> {
  return [
    await compare(`one of two planes, for ${CUT_STEPS} steps`, 2, (steps) =>
      until(steps, CUT_AT + CUT_STEPS),
    ),
    await compare(`the only link, for ${CUT_SECONDS} s`, 1, () => seconds(CUT_SECONDS)),
  ];
}

/** @param lasts resolves when the link is to be restored, given how many steps have ended */
async function compare(
  cut: string,
  planes: number,
  lasts: (steps: () => number) => Promise<void>,
): Promise<CutResult> {
  const hosts = makeHosts(HOSTS, RATE, planes);
  try {
    const whole = await train(hosts, async () => {});
    let sent = [0];
    let span: [number, number] = [0, 0];
    const struck = await train(hosts, async (steps) => {
      await until(steps, CUT_AT);
      const before = hosts.sentBytes();
      hosts.link(1, false);
      const from = steps();
      await lasts(steps);
      sent = hosts.sentBytes().map((bytes, plane) => bytes - before[plane]!);
      hosts.link(1, true);
      span = [from, steps()];
    });
    return {
      cut,
      ...timesOf(struck.seconds, span),
      ...told(struck.text),
      sentBytes: sent,
      sameLosses: same(whole, struck),
    };
  } finally {
    hosts.close();
  }
}

interface Run {
  losses: number[];
  /** Since the start, after each step. */
  seconds: number[];
  text: string;
}

/** Trains `tiny`. @param strike is told how many steps have ended */
async function train(hosts: Hosts, strike: (steps: () => number) => Promise<void>): Promise<Run> {
  const folder = mkdtempSync(join(tmpdir(), 'fathom-cut-'));
  try {
    const corpus = join(folder, 'text.txt');
    writeFileSync(corpus, words());
    const out = join(folder, 'run');
    const what = ['--preset', 'tiny', '--steps', `${STEPS}`, '--precision', 'bf16', '--threads', '1'];
    const where = ['--out', out, '--data', corpus];
    const planes = hosts.planes.length > 1 ? ['--planes', hosts.planes.join(',')] : [];
    const command = [CLI, 'train', ...what, ...where, ...planes];
    const child = spawn('mpirun', [...hosts.mpirun(PER_HOST), process.execPath, ...command], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let text = '';
    child.stderr.on('data', (data: Buffer) => {
      text += data.toString();
    });
    const steps = () => metrics(out).length;
    await Promise.race([strike(steps), ended(child)]);
    await ended(child);
    if (child.exitCode !== 0)
      throw new UserError(`training ended with ${child.exitCode}: ${text.slice(-500)}`);
    const rows = metrics(out);
    return { losses: rows.map(({ loss }) => loss), seconds: rows.map((row) => row.seconds), text };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Lines of steps so far. */
function metrics(out: string): { loss: number; seconds: number }[] {
  let text: string;
  try {
    text = readFileSync(join(out, 'metrics.jsonl'), 'utf8');
  } catch {
    return [];
  }
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter((line) => line.includes('"tokensPerSecond"')).map((line) => JSON.parse(line));
}

const ended = (child: ChildProcess): Promise<unknown> =>
  child.exitCode !== null ? Promise.resolve() : new Promise((done) => child.once('close', done));

const seconds = (count: number): Promise<void> => new Promise((go) => setTimeout(go, 1000 * count));

async function until(steps: () => number, count: number): Promise<void> {
  while (steps() < count) await seconds(0.02);
}

/** @param span steps that had ended when the link was cut, and when it was restored */
function timesOf(ends: readonly number[], [from, to]: [number, number]) {
  const steps = ends.map((end, i) => end - (ends[i - 1] ?? 0));
  // The first step warms up; those next to the cut and the return are partly of both.
  const during = steps.slice(from + 1, to);
  return {
    beforeSeconds: median(steps.slice(1, from)),
    duringSeconds: during.length > 0 ? median(during) : null,
    afterSeconds: median(steps.slice(to + 2)),
    longestSeconds: Math.max(...steps.slice(1)),
  };
}

const same = (a: Run, b: Run): boolean =>
  a.losses.length === STEPS && a.losses.every((loss, i) => loss === b.losses[i]);

const told = (text: string): { said: string | null } => ({
  said: text.split('\n').find((line) => /^fathom: plane/.test(line)) ?? null,
});
