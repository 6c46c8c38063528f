/** One rank of `fathom bench ep`, started by mpirun with the tasks as JSON; rank 0 prints a line with their results. */
import { openMpi } from '../../expert/transport/mpi.js';
import { type ExchangeCase, type ExchangeResult, measureExchange } from './exchange.js';
import { measureOverlap, type OverlapResult } from './overlap.js';

export type EpTask = { kind: 'exchange' | 'overlap'; what: ExchangeCase };
export type EpTaskResult = ExchangeResult | OverlapResult;

/** What a rank is told. */
export interface EpOrder {
  tasks: EpTask[];
  /** Ranks of a node; all of a host by default. */
  perNode?: number;
}

/** Begins the line with results. */
export const RESULT_MARK = '@@ep ';

const { tasks, perNode } = JSON.parse(process.argv[2]!) as EpOrder;
const transport = openMpi({ perNode });
// Every task has channels of its own, two for overlap.
const results = tasks.map(({ kind, what }, i) =>
  kind === 'overlap' ? measureOverlap(transport, what, 2 * i) : measureExchange(transport, what, 2 * i),
);
if (transport.rank === 0) process.stdout.write(`\n${RESULT_MARK}${JSON.stringify(results)}\n`);
transport.close();
