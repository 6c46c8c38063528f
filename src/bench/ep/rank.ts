/** One rank of `fathom bench ep`, started by mpirun with an `EpOrder` as JSON; rank 0 prints a line with the results. */
import { openMpi } from '../../expert/transport/mpi.js';
import { measureExchange } from './exchange.js';
import { type EpOrder, RESULT_MARK } from './order.js';
import { measureOverlap } from './overlap.js';

const { tasks, perNode } = JSON.parse(process.argv[2]!) as EpOrder;
const transport = openMpi({ perNode });
// Every task has channels of its own, two for overlap.
const results = tasks.map(({ kind, what }, i) =>
  kind === 'overlap' ? measureOverlap(transport, what, 2 * i) : measureExchange(transport, what, 2 * i),
);
if (transport.rank === 0) process.stdout.write(`\n${RESULT_MARK}${JSON.stringify(results)}\n`);
transport.close();
