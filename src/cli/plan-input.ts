import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../errors.js';
import { readJsonFile } from '../files.js';
import { type Cluster, parseCluster, parseMachine } from '../spec/machine.js';
import { MACHINES, machineNamed } from '../spec/machines.js';
import { MODEL_PRESETS, type ModelPreset } from '../spec/presets.js';
import { PUBLIC_MODELS, type PublicModelName } from '../spec/public-models.js';
import { parseModelShape } from '../spec/read-shape.js';
import type { ModelShape } from '../spec/shape.js';
import { integer } from './options.js';

/** Formats of products that plans may ask for; a machine may lack some. */
export const FORMATS = ['fp32', 'bf16', 'fp8'] as const;
export type Format = (typeof FORMATS)[number];

/** What every `fathom plan` command starts from. */
export interface PlanInputFlags {
  model: string;
  machine: string;
  nodes?: number;
}

export function addInputOptions(command: Command, defaultModel = 'deepseek-v3'): Command {
  return command
    .option('--model <m>', `a config.json, its folder, or one of: ${modelNames().join(', ')}`, defaultModel)
    .option(
      '--machine <x>',
      `a cluster or Machine file (JSON), or one of: ${Object.keys(MACHINES).join(', ')}`,
      'h800',
    )
    .option('--nodes <n>', 'nodes of that machine', integer(1));
}

const modelNames = (): string[] => [...Object.keys(MODEL_PRESETS), ...Object.keys(PUBLIC_MODELS)];

/** @throws UserError where there is no such model */
export function readShape(source: string): ModelShape {
  if (existsSync(source)) {
    const file = statSync(source).isDirectory() ? join(source, 'config.json') : source;
    return parseModelShape(readJsonFile(file), file);
  }
  if (Object.hasOwn(MODEL_PRESETS, source)) {
    return parseModelShape(MODEL_PRESETS[source as ModelPreset], `preset ${source}`);
  }
  if (Object.hasOwn(PUBLIC_MODELS, source)) {
    return parseModelShape(PUBLIC_MODELS[source as PublicModelName].config, `preset ${source}`);
  }
  throw new UserError(`${source} is neither a file nor a folder nor a preset (${modelNames().join(', ')})`);
}

/** @param nodes in place of those of a cluster file; 1 for a machine by default */
export function readCluster({ machine: source, nodes }: PlanInputFlags, usual = 1): Cluster {
  if (!existsSync(source)) return namedCluster(source, nodes ?? usual);
  const json = readJsonFile(source);
  const isCluster = typeof json === 'object' && json !== null && 'nodes' in json;
  if (!isCluster) {
    const machine = parseMachine(json, source);
    return { name: machine.name, machine, nodes: nodes ?? 1 };
  }
  const cluster = parseCluster(json, source, machineNamed);
  return nodes === undefined ? cluster : { ...cluster, nodes };
}

function namedCluster(name: string, nodes: number): Cluster {
  const machine = machineNamed(name);
  return { name: `${nodes} × ${name}`, machine, nodes };
}
