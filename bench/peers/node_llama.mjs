// node-llama-cpp through its JavaScript API, driven line by line like bench/peers/llama_cpp.cc.
//
//   node node_llama.mjs FOLDER_OF_NODE_MODULES MODEL.gguf threads=2 ctx=8192 kv=F16
//
// Commands on standard input, one JSON object each on standard output; every token's seconds are listed:
//   prefill N           N tokens of a new sequence until the first token comes
//   decode C N          N tokens behind C tokens of context, greedily
//   greedy N ID,ID,...  the N most likely tokens after these
import path from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [modules, modelPath, ...settings] = process.argv.slice(2);
const options = {
  threads: '2',
  ctx: '8192',
  kv: 'F16',
  ...Object.fromEntries(settings.map((text) => text.split('='))),
};
const { getLlama } = await import(pathToFileURL(path.join(modules, 'node-llama-cpp/dist/index.js')).href);

const seconds = () => performance.now() / 1000;
const say = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);

const start = seconds();
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', progressLogs: false });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: Number(options.ctx),
  sequences: 1,
  // 0 keeps its default.
  ...(options.threads === '0'
    ? {}
    : { threads: { ideal: Number(options.threads), min: Number(options.threads) } }),
  flashAttention: true,
  experimentalKvCacheKeyType: options.kv,
  experimentalKvCacheValueType: options.kv,
});
const sequence = context.getSequence();
const vocabulary = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
const token = (position) => 5 + ((position * 7919) % (vocabulary - 5));
const tokens = (first, count) => Array.from({ length: count }, (_, i) => token(first + i));
say({ loadSeconds: seconds() - start, threads: context.currentThreads });

/** Greedy tokens after `prompt`, which is added to what the sequence holds, with the time of each. */
async function generate(prompt, count) {
  const [ids, times] = [[], []];
  let before = seconds();
  for await (const id of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    times.push(seconds() - before);
    ids.push(id);
    if (ids.length === count) break;
    before = seconds();
  }
  return { ids, times };
}

async function run(command, [a, b]) {
  if (command === 'greedy') {
    await sequence.clearHistory();
    return { values: (await generate(b.split(',').map(Number), Number(a))).ids };
  }
  if (command === 'prefill') {
    await sequence.clearHistory();
    return { values: (await generate(tokens(0, Number(a)), 1)).times };
  }
  const length = Number(a);
  const held = sequence.nextTokenIndex;
  if (held < length) await sequence.evaluateWithoutGeneratingNewTokens(tokens(held, length - held));
  else if (held > length) await sequence.eraseContextTokenRanges([{ start: length, end: held }]);
  const { times } = await generate([token(length)], Number(b) + 1);
  // The first also pays for what the others do not.
  return { values: times.slice(1) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...operands] = line.split(' ');
  say({ ...(await run(command, operands)), residentBytes: process.resourceUsage().maxRSS * 1024 });
}
process.exit(0);
