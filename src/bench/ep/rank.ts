/** One rank of `fathom bench ep`, started by mpirun with an `EpOrder` as JSON; rank 0 prints a line with the results. */
import { openMpi } from '../../expert/transport/mpi.js';
import { measureExchange } from './exchange.js';
import { type EpOrder, type EpTaskResult, RESULT_MARK } from './order.js';
import { measureOverlap } from './overlap.js';
import { measureTraining } from './training.js';

const { tasks, perNode } = JSON.parse(process.argv[2]!) as EpOrder;
const transport = openMpi({ perNode });
/** Tasks of training have channels with the first numbers, one run after the other; the others those from here on. */
const FIRST_CHANNEL = 64;

// Every task has channels of its own, two for overlap.
const results = tasks.map((task, i): EpTaskResult => {
  const id = FIRST_CHANNEL + 2 * i;
  if (task.kind === 'training') return measureTraining(transport, task.what, id);
  return task.kind === 'overlap'
    ? measureOverlap(transport, task.what, id)
    : measureExchange(transport, task.what, id);
});
if (transport.rank === 0) process.stdout.write(`\n${RESULT_MARK}${JSON.stringify(results)}\n`);
transport.close();
