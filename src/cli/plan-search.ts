import { deserialize, serialize } from 'node:v8';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import type { Transport } from '../expert/transport/transport.js';
import { writeFileAtomicallySync, writeFully } from '../files.js';
import { mergeResults, type SearchInput, type SearchResult, searchPlans } from '../plan/search.js';
import type { ServeCandidate, ServeSearchResult } from '../plan/serve-search.js';
import { type ScatterChart, scatterSvg } from '../report/scatter.js';
import { SILENT_UI, type Ui } from '../report/ui.js';
import type { Cluster } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';

/** Searching on several threads, and on ranks of an MPI job: each takes every n-th plan of the same enumeration. */

interface Task {
  shape: ModelShape;
  cluster: Cluster;
  input: SearchInput;
  index: number;
  of: number;
}

type Message = { enumerated: number } | { result: SearchResult };

/** @param part what of the enumeration this process searches */
export async function searchInParallel(
  ui: Ui,
  shape: ModelShape,
  cluster: Cluster,
  input: SearchInput,
  threads: number,
  part = { index: 0, of: 1 },
): Promise<SearchResult> {
  const progress = ui.progress('search');
  const onProgress = (done: number) => progress.update({ done, total: 0, details: ['plans'] });
  try {
    if (threads === 1) return searchPlans(shape, cluster, input, part, onProgress);
    const tasks = Array.from({ length: threads }, (_, thread) => ({
      shape,
      cluster,
      input,
      index: part.index * threads + thread,
      of: part.of * threads,
    }));
    return mergeResults(await Promise.all(tasks.map((task) => runTask(task, onProgress))), input.objective);
  } finally {
    progress.end();
  }
}

function runTask(task: Task, onProgress: (done: number) => void): Promise<SearchResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: task });
    worker.on('message', (message: Message) => {
      if ('result' in message) resolve(message.result);
      else onProgress(message.enumerated);
    });
    worker.on('error', reject);
    worker.on('exit', (code) => reject(new Error(`a search thread ended early, code ${code}`)));
  });
}

/** The front reaches to plans that nobody wants, a thousand times as slow: the figure ends at so many times the fastest step. */
const SLOWEST_SHOWN = 1.5;

/** Every rank's part, and the whole on rank 0; other ranks get their own part back. */
export async function searchOnRanks(
  transport: Transport,
  ui: Ui,
  shape: ModelShape,
  cluster: Cluster,
  input: SearchInput,
  threads: number,
): Promise<SearchResult> {
  const { rank, placement } = transport;
  const part = { index: rank, of: placement.size };
  const own = await searchInParallel(rank === 0 ? ui : SILENT_UI, shape, cluster, input, threads, part);
  const parts = gather(transport, serialize(own)).map((bytes) => deserialize(bytes) as SearchResult);
  return rank === 0 ? mergeResults(parts, input.objective) : own;
}

/** What every rank has to say, in the order of ranks. */
function gather({ rank, placement, world }: Transport, bytes: Uint8Array): Uint8Array[] {
  const lengths = new Int32Array(placement.size);
  world.allGather(Int32Array.of(bytes.length), lengths, new Array<number>(placement.size).fill(1)).wait();
  const counts = [...lengths];
  const all = new Uint8Array(counts.reduce((sum, length) => sum + length, 0));
  world.allGather(new Uint8Array(bytes).subarray(0, counts[rank]), all, counts).wait();
  const starts = counts.map((_, i) => counts.slice(0, i).reduce((sum, length) => sum + length, 0));
  return counts.map((length, i) => all.subarray(starts[i]!, starts[i]! + length));
}

/** The front as a figure, plans that fit as a cloud behind it. */
export function writeFront(file: string, { ranked, front }: SearchResult): void {
  const fastest = Math.min(...front.map(({ estimate }) => estimate.stepSeconds));
  const points = (plans: SearchResult['front'], label: (one: SearchResult['front'][number]) => string) =>
    plans
      .filter(({ estimate }) => estimate.stepSeconds <= SLOWEST_SHOWN * fastest)
      .map((one) => ({
        x: one.estimate.stepSeconds,
        y: one.estimate.memory.total / 1e9,
        label: label(one),
      }));
  writeScatter(file, {
    title: `Step time and memory of plans, up to ${SLOWEST_SHOWN} times the fastest step`,
    xLabel: 'seconds a step',
    yLabel: 'GB of the fullest device',
    series: [
      { name: 'plans', points: points(ranked, () => '') },
      { name: 'front', points: points(front, shortName) },
    ],
  });
}

/** The same of serving: what a user waits for, and what a device yields. */
export function writeServeFront(file: string, { ranked, front }: ServeSearchResult): void {
  const place = ({ estimate: e }: ServeCandidate) => ({
    x: e.timePerOutputTokenSeconds * 1e3,
    y: e.split.tokensPerSecondPerDevice,
  });
  const label = ({ plan }: ServeCandidate) => `EP${plan.devices} batch ${plan.batch}`;
  writeScatter(file, {
    title: 'Time per token and yield of plans',
    xLabel: 'milliseconds a token',
    yLabel: 'tokens a second and device, prefill included',
    series: [
      { name: 'plans', points: ranked.map((one) => ({ ...place(one), label: '' })) },
      { name: 'front', points: front.map((one) => ({ ...place(one), label: label(one) })) },
    ],
  });
}

const writeScatter = (file: string, chart: ScatterChart): void => writeFigure(file, scatterSvg(chart));

/** @throws UserError where the file cannot be written; a half one is never left */
export function writeFigure(file: string, svg: string): void {
  const bytes = new TextEncoder().encode(svg);
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, bytes, 0));
}

const shortName = ({ plan }: SearchResult['front'][number]): string =>
  `PP${plan.pipeline} EP${plan.expert} TP${plan.tensor}`;

function searchInWorker(task: Task): void {
  const say = (message: Message) => parentPort!.postMessage(message);
  const part = { index: task.index, of: task.of };
  say({
    result: searchPlans(task.shape, task.cluster, task.input, part, (enumerated) => say({ enumerated })),
  });
}

if (!isMainThread && (workerData as Task | null)?.input) searchInWorker(workerData as Task);
