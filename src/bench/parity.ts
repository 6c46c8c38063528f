/**
 * The same greedy continuations from llama.cpp, on the GGUF that we write of a model trained here, as from our own engine on the
 * checkpoint.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { convertToGguf } from '../infer/gguf/convert.js';
import { readCheckpoint } from '../model/checkpoint.js';
import type { Ui } from '../report/ui.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import { Tokenizer } from '../text/tokenizer.js';
import { runTraining } from '../train/run.js';
import type { Answer } from './line-process.js';
import { installLlama, startLlama, startNodeLlama } from './llama.js';
import { startOwn } from './own.js';
import { cacheFolder } from './random-model.js';

/** Tokens of a continuation. */
const LENGTH = 64;

/** Beginnings in the style of the corpus that the model was trained on. */
const PROMPTS = [
  'The state of the Union',
  'I have the honor to',
  'It is the duty of every',
  'In the year',
  'Peace',
];

/**
 * What a file's matrices are, what our own engine takes for it, and what llama.cpp keeps its cache in. Products round their
 * operands to the matrices' type on both sides but sum in another order, so that logits which are closer together than one
 * unit in the last place of that type, `ulp` of the larger one, may change places: a tie.
 */
const PAIRS = {
  f32: { weights: 'fp32', cache: 'fp32', peerCache: 'f32', ulp: 2 ** -23 },
  f16: { weights: 'fp32', cache: 'fp32', peerCache: 'f32', ulp: 2 ** -10 },
  bf16: { weights: 'bf16', cache: 'bf16', peerCache: 'f16', ulp: 2 ** -7 },
} as const satisfies Record<
  string,
  { weights: WeightFormat; cache: CacheFormat; peerCache: 'f16' | 'f32'; ulp: number }
>;
type Pair = keyof typeof PAIRS;

/** One continuation. */
export interface ParityCase {
  type: Pair;
  peer: 'C API' | 'node-llama-cpp';
  prompt: string;
  /** Tokens that agree from the first on, of `length`. */
  agree: number;
  /** Where they part: how far llama.cpp's best logit was ahead of its second, and whether that is a tie. */
  parting?: { margin: number; tie: boolean };
}

export interface ParityReport {
  model: string;
  length: number;
  cases: ParityCase[];
  /** Whether all continuations are the same up to ties. */
  equal: boolean;
}

/** @throws UserError when llama.cpp cannot be installed or fails */
export async function benchParity(threads: number, ui: Ui): Promise<ParityReport> {
  const llama = installLlama(ui);
  const folder = await trainedModel(ui);
  const tokenizer = Tokenizer.fromFolder(folder);
  const prompts = PROMPTS.map((text) => ({ text, ids: [...tokenizer.encode(text)] }));
  const cases: ParityCase[] = [];
  for (const type of Object.keys(PAIRS) as Pair[]) {
    const { weights, cache, peerCache } = PAIRS[type];
    const file = writeGgufOf(folder, type);
    const sizes = { threads, contextTokens: 512, sequences: 1 };
    const ours = await startOwn('runner', folder, { ...sizes, weights, cache });
    const native = await startLlama(llama, file, { ...sizes, cache: peerCache });
    const { process: node } = await startNodeLlama(llama, file, { ...sizes, cache: peerCache });
    for (const { text, ids } of prompts) {
      const command = `greedy ${LENGTH} ${ids.join(',')}`;
      const expected = (await ours.ask(command)).values;
      const answer = (await native.ask(command)) as Continuation;
      const inNode = (await node.ask(command)).values;
      cases.push(compare(type, 'C API', text, expected, answer.values, answer));
      cases.push(compare(type, 'node-llama-cpp', text, expected, inNode, answer));
    }
    for (const child of [ours, native, node]) await child.close();
  }
  const equal = cases.every(({ parting }) => parting === undefined || parting.tie);
  return { model: 'tiny', length: LENGTH, cases, equal };
}

/** What the C API tells of a continuation. */
interface Continuation extends Answer {
  logits: number[];
  margins: number[];
}

/** @param told by the C API, whose margins are node-llama-cpp's too as long as both say the same */
function compare(
  type: Pair,
  peer: ParityCase['peer'],
  prompt: string,
  expected: readonly number[],
  got: readonly number[],
  told: Continuation,
): ParityCase {
  const at = got.findIndex((id, i) => id !== expected[i]);
  if (at < 0) return { type, peer, prompt, agree: got.length };
  const same = told.values.slice(0, at).every((id, i) => id === expected[i]);
  const margin = same ? told.margins[at]! : Number.POSITIVE_INFINITY;
  const tie = margin <= PAIRS[type].ulp * 2 ** Math.floor(Math.log2(Math.abs(told.logits[at]!)));
  return { type, peer, prompt, agree: at, parting: { margin, tie } };
}

/** Steps that make the preset `tiny` write words. */
const TRAINING_STEPS = 400;

/** The preset `tiny`, trained the first time; a minute. */
async function trainedModel(ui: Ui): Promise<string> {
  const folder = path.join(cacheFolder(), 'models', 'trained-tiny');
  if (!existsSync(path.join(folder, 'config.json')))
    await runTraining({ preset: 'tiny', out: folder, steps: TRAINING_STEPS }, ui);
  return folder;
}

function writeGgufOf(folder: string, type: Pair): string {
  const file = path.join(folder, `${type}.gguf`);
  const checkpoint = readCheckpoint(folder);
  convertToGguf(checkpoint, folder, file, { type });
  checkpoint.close();
  return file;
}
