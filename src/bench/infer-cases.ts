import type { TensorTypeName } from '../infer/gguf/format.js';
import type { InferModel } from '../spec/presets.js';
import type { LlamaSettings } from './llama.js';

/** What `bench infer` measures, and what it must reach. Ratios and shares are of one run. */

/** Weights of about the same width on both sides. */
export interface FormatCase {
  name: '8 bits' | '4 bits' | 'BF16';
  weights: 'int8' | 'q4' | 'bf16';
  peer: TensorTypeName;
}

export const FORMATS: readonly FormatCase[] = [
  { name: '8 bits', weights: 'int8', peer: 'q8_0' },
  { name: '4 bits', weights: 'q4', peer: 'q4_0' },
  { name: 'BF16', weights: 'bf16', peer: 'bf16' },
];

/** A command of the measured programs (bench/peers/llama_cpp.cc) and the tokens that one of its values stands for. */
export interface Measure {
  name: string;
  command: string;
  tokens: number;
}

export const MEASURES = {
  prefill: { name: 'prefill 512', command: 'prefill 512', tokens: 512 },
  short: { name: 'decode, 16 tokens of context', command: 'decode 16 48', tokens: 1 },
  at2000: { name: 'decode, 2,000', command: 'decode 2000 16', tokens: 1 },
  at4000: { name: 'decode, 4,000', command: 'decode 4000 12', tokens: 1 },
  batch8: { name: '8 sequences', command: 'batch 8 16 24', tokens: 8 },
} as const satisfies Record<string, Measure>;
export type MeasureName = keyof typeof MEASURES;

type Targets = Partial<Record<FormatCase['name'], Partial<Record<MeasureName, number>>>>;

/** Least tokens/s over those of llama.cpp's C API, by model. */
export const TARGETS: Record<InferModel, Targets> = {
  'bench-1b': {
    '8 bits': { prefill: 2.5, short: 1.4, at2000: 2.2, at4000: 3, batch8: 2.5 },
    '4 bits': { short: 1.4, at2000: 2.2, at4000: 3, batch8: 2.5 },
  },
  'deepseek-v2-lite': { '4 bits': { short: 1.3 } },
};

/** Least share of the floor, active bytes per token over read bandwidth, at short context. */
export const FLOOR_TARGET = 0.75;
/** Least prefill over the best that llama.cpp does in any type. */
export const BEST_PREFILL_TARGET = 2;
/** Least decode over node-llama-cpp's JavaScript API, and share of the bare loop that our own API keeps. */
export const NODE_TARGET = 3;
export const API_TARGET = 0.95;
/** Least share of the quiet decode speed beside a neighbour that takes one of two cores. */
export const NEIGHBOUR_TARGET = 0.5;
/** Most seconds from command to first token, with the weights in the page cache. */
export const FIRST_TOKEN_TARGET = 1;
/** Most bytes of resident memory beyond weights and cache. */
export const MEMORY_TARGET_BYTES = 200e6;

/**
 * Settings of llama.cpp that are tried on each format before measuring; the fastest at each measure counts. Weights
 * repacked or as they are, and flash attention or not, are what changes its speed on a CPU; its polling level and cache types did not
 * (measured here, docs/performance.md).
 */
export const PEER_SETTINGS: readonly Pick<LlamaSettings, 'repack' | 'flashAttention'>[] = [
  { repack: true, flashAttention: true },
  { repack: true, flashAttention: false },
  { repack: false, flashAttention: true },
];
