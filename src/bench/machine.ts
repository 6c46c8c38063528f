import { arch, cpus, platform, totalmem } from 'node:os';
import type { Addon, InstructionSet, Kernels } from '../backend/native/addon.js';

/** What a result was measured on. */
export interface Machine {
  cpu: string;
  /** CPUs that this process may use. */
  cores: number;
  isa: InstructionSet;
  memoryBytes: number;
  system: string;
  node: string;
  /** ISO 8601. */
  date: string;
}

export function describeMachine(addon: Addon, isa: InstructionSet): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: addon.info().cpus,
    isa,
    memoryBytes: totalmem(),
    system: `${platform()} ${arch()}`,
    node: process.version,
    date: new Date().toISOString(),
  };
}

/** What this machine can do at best, measured; per second, on `threads` threads. */
export interface Ceilings {
  threads: number;
  /** FP32 multiply-adds, FLOP. */
  fma32: number;
  /** BF16 dot products, or the widened FP32 multiply-adds that stand in for them, FLOP. */
  dotbf16: number;
  /** BF16 matrix unit (AMX), FLOP; 0 where there is none. */
  amxbf16: number;
  /** Memory read, bytes. */
  read: number;
  /** Memory copied, bytes read plus bytes written. */
  copy: number;
}

/** Measures the ceilings of one instruction-set level. */
export function measureCeilings(addon: Addon, kernels: Kernels, threads: number): Ceilings {
  addon.setThreads(threads);
  return {
    threads,
    fma32: kernels.peak('fma32'),
    dotbf16: kernels.peak('dotbf16'),
    amxbf16: kernels.peak('amxbf16'),
    read: kernels.peak('read'),
    copy: kernels.peak('copy'),
  };
}

/** The higher of two measurements of each: a ceiling is what the machine can do undisturbed. */
export function highest(a: Ceilings, b: Ceilings): Ceilings {
  const entries = Object.entries(a).map(([key, value]) => [key, Math.max(value, b[key as keyof Ceilings])]);
  return Object.fromEntries(entries) as unknown as Ceilings;
}

/** FLOP per second of the fastest BF16 unit. */
export const matrixPeak = ({ dotbf16, amxbf16 }: Ceilings): number => Math.max(dotbf16, amxbf16);

/** Bytes that a kernel moves between memory and caches. */
export interface Traffic {
  read: number;
  /** Written to memory that it does not read. */
  written: number;
  /** Written back where they were read; counted in `read` as well. */
  updated?: number;
}

/**
 * Seconds that memory needs at least for this traffic. The rate of writing follows from a copy: each byte copied is one
 * read and one written, 2/copy = 1/read + 1/write. A cache reads a line before it writes into it, so that what is
 * updated in place costs half of that.
 */
export function memorySeconds({ read, copy }: Ceilings, traffic: Traffic): number {
  const perWritten = Math.max(2 / copy - 1 / read, 0);
  return traffic.read / read + (traffic.written + (traffic.updated ?? 0) / 2) * perWritten;
}
