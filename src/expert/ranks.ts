import { availableParallelism } from 'node:os';
import { type MpiTransport, openMpi } from './transport/mpi.js';
import { ranksBeside, type Transport } from './transport/transport.js';

/** How a command runs over the ranks of an MPI job. */
export interface RankSettings {
  /** Ranks that the experts of a layer are spread over; all by default. */
  expertParallel?: number;
  /** Nodes that a token may go to. */
  nodesLimit?: number;
  /** DISPATCH:COMBINE, `bf16:bf16` by default, `fp32:fp32` in FP32. */
  wire?: string;
  /** Ranks that share memory; all of a host by default. */
  ranksPerNode?: number;
  /** Checksums on messages between nodes. */
  checksums?: boolean;
  /** Seconds of silence after which a rank is taken for lost; 15 by default. */
  lostAfter?: number;
}

/** How an engine spans ranks; survives structured cloning. */
export interface ServingRanks extends RankSettings {
  /** Copies of experts beyond the first, in each layer; 0 by default. */
  redundantExperts?: number;
  /** Passes of the model after which experts are placed anew by measured loads; never by default. */
  rebalanceEvery?: number;
}

/** Starts MPI for this rank. @throws UserError */
export function openRanks({ ranksPerNode, lostAfter }: RankSettings): MpiTransport {
  return openMpi({ perNode: ranksPerNode, silenceSeconds: lostAfter });
}

/** The CPUs of a host shared out among its ranks. */
export function threadsOfRank({ placement, rank }: Transport): number {
  return Math.max(1, Math.floor(availableParallelism() / ranksBeside(placement, rank)));
}
