// One rank of a test: a thread (started by ranks.ts) or a process of mpirun. Runs a case of cases.mjs and reports its
// result: a thread as a message, a process as FOLDER/RANK.json.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { cases } from './cases.mjs';

const { name, options, folder } = workerData ?? JSON.parse(process.argv[2]);
const dist = (file) => import(new URL(`../../dist/expert/${file}`, import.meta.url));

async function open() {
  if (workerData) return new (await dist('transport/threads.js')).ThreadTransport(workerData.end);
  return (await dist('transport/mpi.js')).openMpi({
    perNode: options.perNode,
    silenceSeconds: options.silenceSeconds,
  });
}

const transport = await open();
const result = await cases[name](transport, options);
if (parentPort) parentPort.postMessage(result);
else writeFileSync(join(folder, `${transport.rank}.json`), JSON.stringify(result ?? null));
transport.close();
