/** The thread that an engine computes in; see worker-engine.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import type { GenerateEvent } from './engine.js';
import { type FromEngine, sendError, type ToEngine, type WorkerStart } from './engine-messages.js';
import type { LocalEngine } from './local-engine.js';
import { openLocalEngine } from './open-engine.js';

const port = parentPort!;
const calls = new Map<number, AbortController>();
const send = (message: FromEngine) => port.postMessage(message);
let outbox: (FromEngine & { type: 'events' })['events'] = [];

/** Sends an event together with all others of this turn: ticks come when the readers of all calls have had their turn. */
function sendEvent(id: number, event: GenerateEvent): void {
  if (outbox.length === 0) process.nextTick(flush);
  outbox.push({ id, event });
}

function flush(): void {
  const events = outbox;
  outbox = [];
  if (events.length > 0) send({ type: 'events', events });
}

async function generate(
  engine: LocalEngine,
  { id, request }: ToEngine & { type: 'generate' },
): Promise<void> {
  const abort = new AbortController();
  calls.set(id, abort);
  try {
    for await (const event of engine.generate(request, abort.signal)) sendEvent(id, event);
  } catch (error) {
    flush(); // what came before
    send({ type: 'failed', id, error: sendError(error as Error) });
  } finally {
    calls.delete(id);
  }
}

async function take(engine: LocalEngine, message: ToEngine): Promise<void> {
  if (message.type === 'generate') return generate(engine, message);
  if (message.type === 'cancel') return calls.get(message.id)?.abort();
  if (message.type === 'ask') {
    const { id, question } = message;
    return send({ type: 'answer', id, answer: await engine[question]() });
  }
  await engine.close();
  flush();
  send({ type: 'closed' });
  port.close();
}

try {
  const { folder, options } = workerData as WorkerStart;
  const engine = openLocalEngine(folder, options);
  port.on('message', (message: ToEngine) => void take(engine, message));
  send({ type: 'opened', info: engine.info });
} catch (error) {
  send({ type: 'notOpened', error: sendError(error as Error) });
}
