// Ten thousand short requests with random cancels: node scripts/soak.mjs DIR [REQUESTS] [native|reference]
// Fails where a page is lost, a request stays behind, an answer differs from before, or memory keeps growing.

import { openLocalEngine } from '../dist/infer/open-engine.js';
import { Random } from '../dist/numerics/random.js';

const [folder, count = '10000', backend = 'native'] = process.argv.slice(2);
/** Requests at a time: more than run together, so that the queue is used. */
const TOGETHER = 48;
/** Growth of resident memory over the second half that counts as a leak, assumed: twice the noise of garbage collection. */
const GROWTH_BYTES = 64e6;

const options = {
  backend,
  maxBatch: 16,
  maxQueue: 64,
  contextTokens: 256,
  cacheTokens: 1024,
  speculative: true,
};
const engine = openLocalEngine(folder, options);
const random = new Random(1);
const text = 'The state of the Union is strong and the people of the United States know it well. '.repeat(2);
let [started, cancelled] = [0, 0];

async function read(request, patience, abort) {
  const ids = [];
  let events = 0;
  for await (const event of engine.generate(request, abort?.signal)) {
    if (event.type === 'text') ids.push(...event.ids);
    else if (event.reason === 'cancelled') cancelled++;
    if (++events <= patience) continue;
    cancelled++;
    break;
  }
  return ids.join();
}

async function client() {
  while (started < Number(count)) {
    const seed = started++;
    const from = random.below(4) * 20;
    const prompt = text.slice(from, from + 1 + random.below(80));
    const request = { prompt, seed, maxTokens: 1 + random.below(16), topP: 0.9 };
    const kind = random.below(4);
    const abort = kind === 1 ? new AbortController() : undefined;
    if (abort) setTimeout(() => abort.abort(), random.below(30));
    await read(request, kind === 0 ? random.below(4) : Number.POSITIVE_INFINITY, abort);
  }
}

const probe = { prompt: text, maxTokens: 32, temperature: 0, ignoreEos: true };
const before = await read(probe, Number.POSITIVE_INFINITY);
const clients = Array.from({ length: TOGETHER }, client);
const memory = [];
const watch = setInterval(() => {
  engine.core.scheduler.verify();
  memory.push({ at: started, rss: process.memoryUsage().rss });
  if (process.stderr.isTTY)
    process.stderr.write(
      `\r${started} requests, ${cancelled} cancelled, ${(memory.at(-1).rss / 1e6).toFixed(0)} MB `,
    );
}, 250);
const begun = performance.now();
await Promise.all(clients);
clearInterval(watch);
const seconds = (performance.now() - begun) / 1000;
engine.core.scheduler.verify();
const after = await read(probe, Number.POSITIVE_INFINITY);
const stats = await engine.stats();
await engine.close();
const middle = memory.find(({ at }) => at >= Number(count) / 2)?.rss ?? memory.at(-1)?.rss;
const growth = process.memoryUsage().rss - middle;
console.log(JSON.stringify({ requests: started, cancelled, seconds, growthBytes: growth, ...stats }));
if (before !== after) throw new Error('the same greedy request gives other tokens than before');
if (stats.running + stats.waiting > 0) throw new Error('requests are left over');
if (growth > GROWTH_BYTES) throw new Error(`memory grew by ${growth} bytes over the second half`);
