import {
  type Addon,
  addonProblem,
  type InstructionSet,
  type Kernels,
  loadAddon,
} from '../backend/native/addon.js';
import { nativeBackend } from '../backend/native/index.js';
import { UserError } from '../errors.js';
import type { Ui } from '../report/ui.js';
import { attentionCases } from './attention-cases.js';
import type { KernelCase, PreparedCase } from './cases.js';
import { expertCases, gemmCases } from './gemm-cases.js';
import {
  type Ceilings,
  describeMachine,
  highest,
  type Machine,
  matrixPeak,
  measureCeilings,
  memorySeconds,
} from './machine.js';
import { measure, type Timing } from './measure.js';
import { memoryCases } from './memory-cases.js';

/** One kernel against its roofline. */
export interface KernelResult {
  name: string;
  threads: number;
  seconds: Timing;
  /** FLOP/s of products, bytes/s of memory traffic. */
  rate: number;
  kind: 'compute' | 'memory';
  /** Median speed over the ceiling: the fastest BF16 unit, or the memory. */
  share: number;
  /** The same over the BF16 dot product, which machines without a matrix unit have as well; compute only. */
  shareOfDot: number | null;
  target: number | null;
  met: boolean | null;
}

export interface KernelReport {
  machine: Machine;
  /** One thread, and all threads. */
  ceilings: Ceilings[];
  kernels: KernelResult[];
}

export interface KernelOptions {
  /** All CPUs by default. */
  threads?: number;
  /** A lower instruction-set level than the best. */
  isa?: InstructionSet;
  /** Only kernels whose name contains this, in any case. */
  only?: string;
}

/**
 * Measures this machine's ceilings, every kernel as a share of its own, and the ceilings again.
 * @throws UserError without the addon, or where the CPU lacks `isa`
 */
export function benchKernels(options: KernelOptions, ui: Ui): KernelReport {
  const addon = requireAddon();
  const isa = options.isa ?? addon.info().isa;
  const kernels = kernelsOf(addon, isa);
  const all = options.threads ?? addon.info().threads;
  const counts = all > 1 ? [1, all] : [1];
  const cases = selectedCases(options.only);
  const progress = ui.progress(`bench kernels (${isa})`);
  const before = counts.map((threads) => measureCeilings(addon, kernels, threads));
  const backend = nativeBackend(addon, all, isa);
  const measured = cases.flatMap((kernel, done) => {
    progress.update({ done, total: cases.length, details: [kernel.name] });
    const prepared = kernel.prepare(backend);
    const on = kernel.threads === 'all' ? [all] : counts;
    return on.map((threads) => ({
      kernel,
      threads,
      work: prepared.work,
      seconds: timed(addon, threads, prepared),
    }));
  });
  progress.end();
  const ceilings = counts.map((threads, i) => highest(before[i]!, measureCeilings(addon, kernels, threads)));
  const ceilingOf = (threads: number) => ceilings[counts.indexOf(threads)]!;
  return {
    machine: describeMachine(addon, isa),
    ceilings,
    kernels: measured.map((m) => judge(m.kernel, m.work, m.seconds, ceilingOf(m.threads))),
  };
}

/** @throws UserError saying how to build it */
export function requireAddon(): Addon {
  const addon = loadAddon();
  if (!addon)
    throw new UserError(`no native backend: ${addonProblem()}; build it with: npm run build:native`);
  return addon;
}

/** @throws UserError where this CPU lacks the level */
export function kernelsOf(addon: Addon, isa: InstructionSet): Kernels {
  try {
    return addon.forIsa(isa);
  } catch {
    throw new UserError(`--isa ${isa} is not available on this CPU; its best level is ${addon.info().best}`);
  }
}

function selectedCases(only = ''): KernelCase[] {
  const all = [...gemmCases(), ...expertCases(), ...attentionCases(), ...memoryCases()];
  const cases = all.filter(({ name }) => name.toLowerCase().includes(only.toLowerCase()));
  if (cases.length > 0) return cases;
  throw new UserError(`--only ${only} matches no kernel; one of them is "${all[0]!.name}"`);
}

function timed(addon: Addon, threads: number, { run }: PreparedCase): Timing {
  addon.setThreads(threads);
  return measure(run);
}

/** A timing against the ceilings of its number of threads. */
export function judge(
  { name, target }: Pick<KernelCase, 'name' | 'target'>,
  work: PreparedCase['work'],
  seconds: Timing,
  ceilings: Ceilings,
): KernelResult {
  const compute = 'flops' in work;
  const amount = compute ? work.flops : work.read + work.written + (work.updated ?? 0);
  const atBest = compute ? work.flops / matrixPeak(ceilings) : memorySeconds(ceilings, work);
  const share = atBest / seconds.median;
  return {
    name,
    threads: ceilings.threads,
    seconds,
    rate: amount / seconds.median,
    kind: compute ? 'compute' : 'memory',
    share,
    shareOfDot: compute ? work.flops / ceilings.dotbf16 / seconds.median : null,
    target: target ?? null,
    met: target === undefined ? null : share >= target,
  };
}
