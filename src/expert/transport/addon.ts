import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../../errors.js';
import type { Elements } from './transport.js';

/** The MPI addon as it exports itself (native/mpi/addon.cc). */
export interface MpiAddon {
  start(): { rank: number; size: number; hosts: string[]; library: string };
  split(comm: number, colour: number, key: number): number;
  sharedMemory(comm: number, bytes: number): ArrayBuffer;
  send(comm: number, data: Elements, to: number, tag: number): number;
  receive(
    comm: number,
    into: Elements,
    from: number,
    tag: number,
    counter: Int32Array | undefined,
    index: number,
    delta: number,
  ): number;
  listen(comm: number, into: Elements, from: number, tag: number): number;
  broadcast(comm: number, data: Elements, root: number): number;
  barrier(comm: number): number;
  allReduce(comm: number, data: Elements, operation: string): number;
  reduceScatter(comm: number, input: Elements, output: Elements, counts: readonly number[]): number;
  allGather(comm: number, input: Elements, output: Elements, counts: readonly number[]): number;
  allToAll(
    comm: number,
    input: Elements,
    inputCounts: readonly number[],
    output: Elements,
    outputCounts: readonly number[],
  ): number;
  /** Median seconds of MPI's own blocking exchange. */
  allToAllSeconds(
    comm: number,
    input: Elements,
    inputCounts: readonly number[],
    output: Elements,
    outputCounts: readonly number[],
    rounds: number,
  ): number;
  wait(request: number): number;
  done(request: number): boolean;
  counterAdd(counter: Int32Array, index: number, delta: number): void;
  counterWait(counter: Int32Array, index: number, target: number): void;
  counterReach(counter: Int32Array, index: number, target: number, milliseconds: number): boolean;
  news(): number;
  awaitNews(since: number, milliseconds: number): void;
  usePlanes(perNode: number): void;
  silence(rank: number): number;
  linkSilence(rank: number): number;
  setSilenceLimit(seconds: number): void;
  finish(): void;
  abort(code: number): void;
}

/** native/mpi/build/Release/fathom_mpi.node of the package, seen from src/ and from dist/ alike. */
export const MPI_ADDON_PATH = resolve(
  dirname(fileURLToPath(import.meta.url)),
  '../../../native/mpi/build/Release/fathom_mpi.node',
);

/** Loads the addon. @throws UserError where it was not built or MPI's library is missing */
export function loadMpiAddon(): MpiAddon {
  if (!existsSync(MPI_ADDON_PATH)) {
    throw new UserError(
      'the MPI addon is not built; with Open MPI or MPICH installed ' +
        '(Debian: sudo apt-get install openmpi-bin libopenmpi-dev) run: npm run build:mpi',
    );
  }
  try {
    return createRequire(import.meta.url)(MPI_ADDON_PATH) as MpiAddon;
  } catch (error) {
    throw new UserError(
      `${MPI_ADDON_PATH} does not load (${(error as Error).message}); run: npm run build:mpi`,
    );
  }
}

/** This process's rank of that job, before MPI is started. */
export const launchedRank = (environment: NodeJS.ProcessEnv = process.env): number =>
  Number(environment.OMPI_COMM_WORLD_RANK ?? environment.PMI_RANK ?? environment.SLURM_PROCID ?? 0);

/** This process's place among the ranks of its host, before MPI is started. */
export const launchedPlace = (environment: NodeJS.ProcessEnv = process.env): number =>
  Number(
    environment.OMPI_COMM_WORLD_LOCAL_RANK ?? environment.MPI_LOCALRANKID ?? environment.SLURM_LOCALID ?? 0,
  );

/** Ranks of the job that started this process, by what Open MPI, MPICH or Slurm put into the environment; 1 without any. */
export function launchedRanks(environment: NodeJS.ProcessEnv = process.env): number {
  const text =
    environment.OMPI_COMM_WORLD_SIZE ??
    environment.PMI_SIZE ??
    environment.MPI_LOCALNRANKS ??
    environment.SLURM_STEP_NUM_TASKS;
  const ranks = Number(text ?? 1);
  return Number.isInteger(ranks) && ranks > 0 ? ranks : 1;
}
