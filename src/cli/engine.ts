import { type Command, Option } from 'commander';
import { integer } from './options.js';

/** Options of every command that computes. */
export interface EngineFlags {
  backend?: 'native' | 'reference' | 'auto';
  threads?: number;
}

/** As `selectBackend` takes them. */
const BACKENDS = ['auto', 'native', 'reference'];
/** More threads than any machine has. */
const MAX_THREADS = 1024;

/** Names of the precision recipes. */
export const PRECISIONS = ['fp32', 'bf16', 'fp8'] as const;
export type Precision = (typeof PRECISIONS)[number];

/** Declares `--backend` and `--threads`. */
export function addEngineOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--backend <name>', 'what computes (default: native if it was built)').choices(BACKENDS),
    )
    .option('--threads <n>', 'threads of the native backend (default: all CPUs)', integer(1, MAX_THREADS));
}

/** `given` without the options that are absent. */
export function present<T extends object>(given: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
