import type { Command } from 'commander';
import type { Transport } from '../expert/transport/transport.js';
import { integer, real } from './options.js';
import type { Outcome } from './session.js';

/** Options of every command that runs over the ranks of an MPI job. */
export interface RankFlags {
  expertParallel?: number;
}

/** Declares them. */
export function addRankOptions(command: Command): Command {
  return command
    .option(
      '--expert-parallel <n>',
      'under mpirun or srun: ranks that the experts are spread over (default: all)',
      integer(1),
    )
    .option('--nodes-limit <n>', 'nodes that a token may go to (default: as the model has it)', integer(1))
    .option(
      '--wire <formats>',
      'number formats to the experts and back, DISPATCH:COMBINE, as in fp8:logfmt10 (default: bf16)',
    )
    .option('--ranks-per-node <n>', 'ranks that share memory (default: all of a host)', integer(1))
    .option('--checksums', 'checksums on messages between nodes')
    .option('--lost-after <s>', 'seconds of silence after which a rank is lost (default: 15)', real(1));
}

/** Declares those of commands that spread a model's experts to infer with it. */
export function addServingRankOptions(command: Command): Command {
  return addRankOptions(command)
    .option(
      '--redundant-experts <n>',
      'over ranks: experts of each layer that are there once more, the hottest ones (default: 0)',
      integer(0),
    )
    .option(
      '--rebalance-every <n>',
      'over ranks: steps after which experts are placed anew by measured load (default: never)',
      integer(1),
    );
}

/** Whether this process is one rank of several, or was asked to be. */
export async function isRank({ expertParallel }: RankFlags): Promise<boolean> {
  const { launchedRanks } = await import('../expert/transport/addon.js');
  return expertParallel !== undefined || launchedRanks() > 1;
}

/** Where MPI does not start, rank 0 says why. */
async function opened<T>(open: () => T): Promise<T> {
  try {
    return open();
  } catch (error) {
    const { launchedRank } = await import('../expert/transport/addon.js');
    const { ReportedError } = await import('../errors.js');
    throw launchedRank() === 0 ? error : new ReportedError((error as Error).message);
  }
}

/** Milliseconds by which each rank lets the one before it report a failure of all. */
const PATIENCE_MS = 300;
const MOST_PATIENCE_MS = 3000;

/**
 * Time for mpirun to find by itself that a host is cut off, which takes it ten seconds with the settings of `fathom launch`. To be
 * told earlier by ranks would have it send something to that host and wait for an answer, for a quarter of an hour.
 */
const MPIRUN_NOTICES_MS = 20_000;

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Whether all ranks of some other hosts are lost, and no others. */
function isOfWholeHosts(lost: ReadonlySet<number>, { placement, rank }: Transport): boolean {
  const { hosts } = placement;
  const gone = new Set([...lost].map((r) => hosts[r]));
  return lost.size > 0 && !gone.has(hosts[rank]) && hosts.every((host, r) => gone.has(host) === lost.has(r));
}

/**
 * Runs one rank's work. A failure that all ranks know of is thrown, and each ends by itself; any other ends all ranks at once,
 * with one line of the lowest rank that sees it.
 */
export async function onRank<T extends Transport>(
  open: () => T,
  work: (transport: T) => Promise<Outcome>,
): Promise<Outcome> {
  const { ReportedError, UserError } = await import('../errors.js');
  const transport = await opened(open);
  try {
    const outcome = await work(transport);
    transport.close();
    return transport.rank === 0 ? outcome : {};
  } catch (error) {
    const { isAgreed } = await import('../expert/agreement.js');
    if (isAgreed(error)) {
      transport.close();
      throw error;
    }
    const { rank, placement } = transport;
    const lost = new Set(transport.lost());
    const hostsLost = isOfWholeHosts(lost, transport);
    await pause(Math.min(PATIENCE_MS * rank, MOST_PATIENCE_MS));
    const text = error instanceof Error ? error.message : String(error);
    // Where a host is cut off, the lowest rank beside rank 0's host speaks, as mpirun ends nobody at once.
    const mute = hostsLost && (lost.has(0) || placement.hosts.some((_, r) => r < rank && !lost.has(r)));
    if (!(error instanceof ReportedError) && !mute) {
      const known = error instanceof UserError;
      process.stderr.write(
        `fathom: rank ${rank} on ${placement.hosts[rank]}: ${text}${known ? '' : `; this is a bug\n${(error as Error).stack}`}\n`,
      );
    }
    if (hostsLost) await pause(MPIRUN_NOTICES_MS);
    transport.abort(1);
    throw error;
  }
}
