/** One rank of `fathom bench ep`, started by mpirun with an `EpOrder` as JSON; rank 0 prints a line with the results. */
import { openOnPlanes } from '../../expert/planes/open.js';
import { measureExchange } from './exchange.js';
import { type EpOrder, type EpTaskResult, RESULT_MARK } from './order.js';
import { measureTraining } from './training.js';

const { tasks, perNode, planes } = JSON.parse(process.argv[2]!) as EpOrder;
const transport = openOnPlanes({
  ...(perNode === undefined ? {} : { ranksPerNode: perNode }),
  ...(planes ? { planes } : {}),
});
/** Those below are the channels of training itself, one task after the other. */
const FIRST_CHANNEL = 64;

const results = tasks.map((task, i): EpTaskResult => {
  const id = FIRST_CHANNEL + i;
  return task.kind === 'training'
    ? measureTraining(transport, task.what, id)
    : measureExchange(transport, task.what, id);
});
if (transport.rank === 0) process.stdout.write(`\n${RESULT_MARK}${JSON.stringify(results)}\n`);
transport.close();
