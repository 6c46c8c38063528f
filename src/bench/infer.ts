import { countParameters } from '../model/parameters.js';
import type { Ui } from '../report/ui.js';
import { parseModelConfig } from '../spec/model.js';
import { type InferModel, MODEL_PRESETS } from '../spec/presets.js';
import type { WeightFormat } from '../spec/serving.js';
import { FORMATS } from './infer-cases.js';
import { type Check, inferChecks } from './infer-checks.js';
import { type FormatResult, InferContest } from './infer-contest.js';
import { kernelsOf, requireAddon } from './kernels.js';
import { installLlama, LLAMA_VERSION } from './llama.js';
import { describeMachine, type Machine } from './machine.js';
import { median } from './measure.js';
import { randomModel } from './random-model.js';

export interface InferOptions {
  model: InferModel;
  /** All CPUs by default. */
  threads?: number;
  peer?: 'llama.cpp';
  /** Formats to measure, by the name of our weights; all by default. */
  weights?: readonly WeightFormat[];
  /** Times that everything is measured, in turn. */
  rounds: number;
  /** Whether to measure beside a neighbour that takes one core. */
  neighbour?: boolean;
}

export interface InferReport {
  machine: Machine;
  model: InferModel;
  threads: number;
  parameters: { total: number; active: number };
  /** Median over the run, bytes/s. */
  readBandwidth: number;
  peer: typeof LLAMA_VERSION | null;
  formats: FormatResult[];
  checks: Check[];
}

/**
 * Measures prefill and decoding of a model of random weights; with a peer, in turn with llama.cpp on the GGUF that we write of
 * the same weights.
 * @throws UserError without the addon, or when the peer cannot be installed or fails
 */
export async function benchInfer(options: InferOptions, ui: Ui): Promise<InferReport> {
  const addon = requireAddon();
  const { isa, threads: cpus } = addon.info();
  const threads = options.threads ?? cpus;
  const llama = options.peer ? installLlama(ui) : undefined;
  const folder = randomModel(options.model, ui);
  const kernels = kernelsOf(addon, isa);
  addon.setThreads(threads);
  const bandwidths: number[] = [];
  const contest = new InferContest({
    folder,
    threads,
    llama,
    rounds: options.rounds,
    neighbour: options.neighbour ?? false,
    betweenRounds: () => bandwidths.push(kernels.peak('read')),
    ui,
  });
  const formats: FormatResult[] = [];
  for (const format of FORMATS) {
    if (options.weights && !options.weights.includes(format.weights)) continue;
    formats.push(await contest.run(format));
  }
  const { total, active } = countParameters(parseModelConfig(MODEL_PRESETS[options.model]));
  const readBandwidth = median(bandwidths);
  return {
    machine: describeMachine(addon, isa),
    model: options.model,
    threads,
    parameters: { total, active },
    readBandwidth,
    peer: llama ? LLAMA_VERSION : null,
    formats,
    checks: inferChecks(options.model, formats, readBandwidth),
  };
}
