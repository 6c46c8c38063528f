import os from 'node:os';
import { z } from 'zod';
import { loadAddon } from '../backend/native/addon.js';

/** What a run was made on. */
export const machineSchema = z.strictObject({
  cpu: z.string(),
  /** CPUs that the process may use. */
  cores: z.number(),
  memoryBytes: z.number(),
  system: z.string(),
  node: z.string(),
  /** Instruction-set level of the native backend, or `reference`. */
  backend: z.string(),
});

export type Machine = z.infer<typeof machineSchema>;

/** @param backend as asked for */
export function describeMachine(backend: string | undefined): Machine {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    system: `${os.platform()} ${os.arch()}`,
    node: process.version,
    backend: (backend !== 'reference' && loadAddon()?.info().isa) || 'reference',
  };
}
