import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { Stack } from '../plan/hand-over/launch.js';
import { integer, words } from './options.js';
import { type Outcome, runs } from './session.js';

interface LaunchFlags {
  with: 'slurm' | 'mpirun' | 'mpijob';
  plan?: string;
  stack: Stack;
  nodes?: number;
  hosts?: string;
  ranksPerNode: number;
  threads: number;
  hours: number;
  image?: string;
  hostfile: string;
  planes?: string[];
  out?: string;
}

/** Commands that run over ranks. */
const OVER_RANKS = ['train'];

/** `fathom launch`. */
export function addLaunch(program: Command): void {
  const command = program
    .command('launch')
    .description(
      'write what starts a command over many ranks, or a plan on a PyTorch stack: a Slurm script, an mpirun line, or a Kubernetes job',
    )
    .argument('[command...]', 'what to run, after --, as in: -- train --preset small --expert-parallel 16')
    .addOption(
      new Option('--with <what>', 'what starts it').choices(['slurm', 'mpirun', 'mpijob']).default('slurm'),
    )
    .option(
      '--plan <file>',
      'in place of a command: a plan that fathom plan search has saved, with its nodes and devices',
    )
    .addOption(
      new Option('--stack <name>', 'what runs the plan')
        .choices(['megatron', 'torchtitan'])
        .default('megatron'),
    )
    .option('--nodes <n>', 'hosts', integer(1))
    .option('--hosts <list>', 'their names, separated by commas (mpirun)')
    .option('--ranks-per-node <n>', 'ranks of each host', integer(1), 1)
    .option('--threads <n>', 'CPUs of each rank', integer(1, 1024), 8)
    .option('--hours <n>', 'time limit (Slurm)', integer(1), 24)
    .option('--image <name>', 'container image (Kubernetes)')
    .option(
      '--planes <list>',
      "a host's network interfaces, one on each plane of the network, as in eth0,eth1",
      words,
    )
    .option('--hostfile <file>', 'where the list of hosts goes (mpirun)', 'hosts.txt')
    .option('--out <file>', 'a file in place of standard output');
  runs<LaunchFlags>(command, async (_session, flags, command) => launch(flags, command));
}

async function launch(flags: LaunchFlags, command: readonly string[]): Promise<Outcome> {
  if (flags.plan !== undefined) return launchPlan(flags, flags.plan, command);
  if (command.length === 0) throw new UsageError('say what to run: a command after --, or --plan FILE');
  if (!OVER_RANKS.includes(command[0] ?? '')) {
    throw new UsageError(`fathom ${command[0]} does not run over ranks; ${OVER_RANKS.join(', ')} does`);
  }
  const { hostFile, mpiJob, mpirunLine, slurmScript } = await import('../expert/launch.js');
  const hosts = flags.hosts?.split(',').map((host) => host.trim());
  const nodes = hosts?.length ?? flags.nodes;
  if (nodes === undefined) throw new UsageError('say on how many hosts: --nodes N, or --hosts a,b,c');
  const { ranksPerNode, threads } = flags;
  const { planes } = flags;
  checkPlanes(planes, ranksPerNode);
  const work = { nodes, ranksPerNode, threads, command, planes };
  let text: string;
  if (flags.with === 'slurm') text = slurmScript(work, flags.hours);
  else if (flags.with === 'mpijob') text = mpiJob(work, required(flags.image));
  else {
    if (!hosts) throw new UsageError('mpirun needs the names of the hosts: --hosts a,b,c');
    await write(flags.hostfile, hostFile(hosts, work));
    text = mpirunLine(work, flags.hostfile);
  }
  if (flags.out) await write(flags.out, text);
  return { json: { with: flags.with, text }, text: flags.out ? `written: ${flags.out}` : text.trimEnd() };
}

function checkPlanes(planes: readonly string[] = [], ranksPerNode: number): void {
  if (planes.length === 0 || ranksPerNode % planes.length === 0) return;
  throw new UsageError(
    `--planes names ${planes.length} interfaces, which do not divide the ${ranksPerNode} ranks of a host (--ranks-per-node)`,
  );
}

/** Starts what a search chose. */
async function launchPlan(flags: LaunchFlags, file: string, command: readonly string[]): Promise<Outcome> {
  if (command.length > 0) throw new UsageError('--plan stands in place of a command; give one of them');
  const { readPlanFile } = await import('./plan-file.js');
  const { readShape } = await import('./plan-input.js');
  const { pytorchJob, slurmPlan } = await import('../plan/hand-over/launch.js');
  const chosen = readPlanFile(file);
  const shape = readShape(chosen.model);
  if (flags.with === 'mpirun') {
    throw new UsageError(`${flags.stack} is started by torchrun: take --with slurm or --with mpijob`);
  }
  const text =
    flags.with === 'slurm'
      ? slurmPlan(flags.stack, shape, chosen, flags.hours)
      : pytorchJob(flags.stack, shape, chosen, required(flags.image));
  if (flags.out) await write(flags.out, text);
  const written = `written: ${flags.out}`;
  return { json: { with: flags.with, text }, text: flags.out ? written : text.trimEnd() };
}

function required(image: string | undefined): string {
  if (image !== undefined) return image;
  throw new UsageError('a Kubernetes job needs a container image that holds what it runs: --image NAME');
}

async function write(file: string, text: string): Promise<void> {
  const { writeFileAtomicallySync, writeFully } = await import('../files.js');
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(text), 0));
}
