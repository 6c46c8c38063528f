import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { selectBackend } from '../backend/select.js';
import { convertToGguf } from '../infer/gguf/convert.js';
import type { TensorTypeName } from '../infer/gguf/format.js';
import { readCheckpoint } from '../model/checkpoint.js';
import { convertCheckpoint } from '../model/convert.js';
import { listParameters } from '../model/parameters.js';
import type { Ui } from '../report/ui.js';
import type { ModelConfig } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import { type FormatCase, MEASURES, type MeasureName, PEER_SETTINGS } from './infer-cases.js';
import type { LineProcess } from './line-process.js';
import { type LlamaSettings, startLlama, startNodeLlama } from './llama.js';
import { median, summarise, type Timing } from './measure.js';
import { startNeighbour } from './neighbour.js';
import { startOwn } from './own.js';

/**
 * Who is measured: our runner in a bare loop, our engine's API, llama.cpp's C API with each of its settings, and
 * node-llama-cpp's API.
 */
export type Contestant = 'runner' | 'engine' | 'node' | `llama ${string}`;

/** What one contestant showed with one format. */
export interface ContestantResult {
  /** Seconds per step, and tokens/s at their median. */
  measures: Partial<Record<MeasureName, { seconds: Timing; tokensPerSecond: number }>>;
  /** Largest resident memory. */
  residentBytes: number;
  /** Tokens/s of decoding at short context beside a neighbour. */
  besideNeighbour?: number;
}

export interface FormatResult {
  format: FormatCase['name'];
  weights: WeightFormat;
  /** Bytes of weights in all, and those that the step of one token reads. */
  weightBytes: number;
  activeBytes: number;
  cacheBytes: number;
  /** From the command to the first token of a short prompt, files in the page cache. */
  firstTokenSeconds: number;
  contestants: Partial<Record<Contestant, ContestantResult>>;
}

export interface ContestOptions {
  /** Checkpoint that all weights come from. */
  folder: string;
  threads: number;
  /** Folder of llama.cpp; absent when it is not measured. */
  llama: string | undefined;
  rounds: number;
  neighbour: boolean;
  /** Called before every round, when nobody else runs. */
  betweenRounds: () => void;
  ui: Ui;
}

/** Longest context, and sequences, of all measures. */
const SIZES = { contextTokens: 4608, sequences: 8 };

/** Measures one format after the other. */
export class InferContest {
  constructor(private readonly options: ContestOptions) {}

  /** All contestants in turn, as many rounds as wanted; who begins changes from round to round. */
  async run(format: FormatCase): Promise<FormatResult> {
    const { rounds, betweenRounds, ui, folder, threads } = this.options;
    const entries = await this.start(format);
    const progress = ui.progress(`bench infer, ${format.name}`);
    const names = Object.keys(MEASURES) as MeasureName[];
    const total = rounds * names.length;
    for (const entry of entries) await entry.warmUp();
    for (let round = 0; round < rounds; round++) {
      betweenRounds();
      for (const [i, measure] of names.entries()) {
        progress.update({ done: round * names.length + i, total, details: [MEASURES[measure].name] });
        for (const entry of rotated(entries, round)) await entry.take(measure);
      }
    }
    if (this.options.neighbour) for (const entry of entries) await entry.besideNeighbour();
    progress.end();
    for (const entry of entries) await entry.close();
    const own = this.checkpoint(format.weights);
    return {
      ...sizesOf(folder, format),
      firstTokenSeconds: median(await inTurn(rounds, () => secondsToFirstToken(own, threads))),
      contestants: Object.fromEntries(entries.map((e) => [e.name, e.result()])),
    };
  }

  private async start(format: FormatCase): Promise<Entry[]> {
    const { threads, llama } = this.options;
    const own = { ...SIZES, threads, weights: format.weights, cache: 'bf16' } as const;
    const entries = [
      new Entry('runner', await startOwn('runner', this.checkpoint(format.weights), own), false),
      new Entry('engine', await startOwn('engine', this.checkpoint(format.weights), own), false),
    ];
    if (llama === undefined) return entries;
    const file = this.gguf(format.peer);
    for (const settings of PEER_SETTINGS) {
      const child = await startLlama(llama, file, { ...SIZES, ...settings, threads });
      entries.push(new Entry(`llama ${settingsName(settings)}`, child, false));
    }
    const { process: node } = await startNodeLlama(llama, file, {
      threads,
      contextTokens: SIZES.contextTokens,
    });
    entries.push(new Entry('node', node, true));
    return entries;
  }

  /** The checkpoint in a format of ours, beside it, written the first time. */
  private checkpoint(weights: FormatCase['weights']): string {
    const { folder, ui } = this.options;
    if (weights === 'bf16') return folder;
    const own = `${folder}-${weights}`;
    if (existsSync(path.join(own, 'config.json'))) return own;
    const progress = ui.progress(`convert ${weights}`);
    const source = readCheckpoint(folder);
    convertCheckpoint(source, own, weights, selectBackend('auto'), (done, total) =>
      progress.update({ done, total }),
    );
    source.close();
    progress.end();
    return own;
  }

  /** The checkpoint as GGUF beside it, written the first time. */
  private gguf(type: TensorTypeName): string {
    const { folder, ui } = this.options;
    const file = path.join(folder, `${type}.gguf`);
    if (existsSync(file)) return file;
    const progress = ui.progress(`convert ${type}`);
    const checkpoint = readCheckpoint(folder);
    convertToGguf(checkpoint, folder, file, {
      type,
      written: (done, total) => progress.update({ done, total }),
    });
    checkpoint.close();
    progress.end();
    return file;
  }
}

const settingsName = ({ repack, flashAttention }: Pick<LlamaSettings, 'repack' | 'flashAttention'>): string =>
  `${repack ? 'repacked' : 'as stored'}, ${flashAttention ? 'flash' : 'plain'} attention`;

async function inTurn<T>(times: number, run: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let i = 0; i < times; i++) results.push(await run());
  return results;
}

/** `fathom generate` from its start to the end of its first token. */
async function secondsToFirstToken(folder: string, threads: number): Promise<number> {
  const main = fileURLToPath(new URL('../cli/main.js', import.meta.url));
  const args = [main, 'generate', folder, '-p', 'Hello', '--max-tokens', '1', '--threads', String(threads)];
  const start = performance.now();
  await promisify(execFile)(process.execPath, args);
  return (performance.now() - start) / 1000;
}

const rotated = <T>(list: readonly T[], by: number): T[] => {
  const at = by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
};

/** One contestant and its seconds as they come in. */
class Entry {
  private readonly seconds = new Map<MeasureName, number[]>();
  private residentBytes = 0;
  private neighbourSeconds: number | undefined;

  /** @param single whether it has one sequence only */
  constructor(
    readonly name: Contestant,
    private readonly child: LineProcess,
    private readonly single: boolean,
  ) {}

  /** Memory that the first steps take, and pages of files, cost whoever comes first. */
  async warmUp(): Promise<void> {
    for (const { command } of [MEASURES.prefill, MEASURES.short]) await this.child.ask(command);
  }

  async take(measure: MeasureName): Promise<void> {
    if (this.single && measure === 'batch8') return;
    const { values, residentBytes } = await this.child.ask(MEASURES[measure].command);
    this.seconds.set(measure, [...(this.seconds.get(measure) ?? []), ...values]);
    this.residentBytes = Math.max(this.residentBytes, residentBytes);
  }

  async besideNeighbour(): Promise<void> {
    const neighbour = await startNeighbour();
    try {
      this.neighbourSeconds = median((await this.child.ask(MEASURES.short.command)).values);
    } finally {
      await neighbour.stop();
    }
  }

  result(): ContestantResult {
    const measures = [...this.seconds].map(([measure, values]) => {
      const seconds = summarise(values);
      return [measure, { seconds, tokensPerSecond: MEASURES[measure].tokens / seconds.median }];
    });
    const beside = this.neighbourSeconds;
    return {
      measures: Object.fromEntries(measures),
      residentBytes: this.residentBytes,
      ...(beside === undefined ? {} : { besideNeighbour: 1 / beside }),
    };
  }

  close(): Promise<void> {
    return this.child.close();
  }
}

/** Bytes of a weight with its scales: FP32 ones per 128 columns or 128×128 block, panels of 576 bytes per 1,024 (spec/serving.ts). */
const BYTES_PER_WEIGHT: Record<WeightFormat, number> = {
  fp32: 4,
  bf16: 2,
  fp8: 1 + 4 / 128 ** 2,
  int8: 1 + 4 / 128,
  q4: 576 / 1024,
};

/** The embedding is looked up and gates are multiplied in full precision; the rest is read in the format. */
function sizesOf(
  folder: string,
  { name, weights }: FormatCase,
): Omit<FormatResult, 'contestants' | 'firstTokenSeconds'> {
  const checkpoint = readCheckpoint(folder);
  const { config } = checkpoint;
  checkpoint.close();
  const bytes = { weightBytes: 0, activeBytes: 0 };
  for (const { kind, part, shape, mtp } of listParameters(config)) {
    if (mtp) continue;
    const size = shape.reduce((n, d) => n * d, 1);
    const own =
      size *
      (kind === 'matrix' && part !== 'gate' ? BYTES_PER_WEIGHT[weights] : part === 'embedding' ? 2 : 4);
    bytes.weightBytes += own;
    bytes.activeBytes += own * activeShare(config, part);
  }
  const cacheBytes =
    SIZES.contextTokens * (config.kv_lora_rank + config.qk_rope_head_dim) * 2 * config.num_hidden_layers;
  return { format: name, weights, ...bytes, cacheBytes };
}

function activeShare(c: ModelConfig, part: string): number {
  if (part === 'routedExperts') return c.num_experts_per_tok / c.n_routed_experts;
  return part === 'embedding' ? 1 / c.vocab_size : 1;
}
