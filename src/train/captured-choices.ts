import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../errors.js';
import { readJsonFile } from '../files.js';
import { SafetensorsReader } from '../model/safetensors.js';
import { parseModelConfig } from '../spec/model.js';
import { CAPTURE_FOLDER } from './capture.js';

/** Which experts the tokens of a captured micro-batch went to, in one layer. */
export interface CapturedChoices {
  layer: number;
  step: number;
  /** [T][K] */
  choices: number[][];
  /** The model's. */
  experts: number;
  hidden: number;
}

interface Found {
  layer: number;
  step: number;
  file: string;
  name: string;
}

/**
 * Reads `routing.layers.N.stepS` i32 [T, K] of `RUN/capture` and the run's `config.json`.
 * @param wanted layer and step; the last of each that is there where it says nothing
 * @throws UserError where the run has none, naming those that it has
 */
export function readCapturedChoices(
  run: string,
  wanted: { layer?: number | undefined; step?: number | undefined } = {},
): CapturedChoices {
  const { layer, step, file, name } = choose(run, wanted);
  const reader = SafetensorsReader.open(file);
  try {
    const values = reader.readIntegers(name);
    const [tokens = 0, topK = 0] = reader.entry(name).shape;
    const choices = Array.from({ length: tokens }, (_, t) => [...values.subarray(t * topK, (t + 1) * topK)]);
    const config = join(run, 'config.json');
    const { n_routed_experts: experts, hidden_size: hidden } = parseModelConfig(readJsonFile(config), config);
    return { layer, step, choices, experts, hidden };
  } finally {
    reader.close();
  }
}

function choose(run: string, wanted: { layer?: number | undefined; step?: number | undefined }): Found {
  const found = listChoices(run);
  if (found.length === 0) {
    throw new UserError(
      `${join(run, CAPTURE_FOLDER)} has no choices of experts; train a model with experts with --capture`,
    );
  }
  const step = wanted.step ?? Math.max(...found.map((one) => one.step));
  const ofStep = found.filter((one) => one.step === step);
  if (ofStep.length === 0) throw missing(run, 'step', step, found);
  const layer = wanted.layer ?? Math.max(...ofStep.map((one) => one.layer));
  const one = ofStep.find((candidate) => candidate.layer === layer);
  if (!one) throw missing(run, 'layer', layer, ofStep);
  return one;
}

function missing(run: string, what: 'step' | 'layer', value: number, found: readonly Found[]): UserError {
  const there = [...new Set(found.map((one) => one[what]))].sort((a, b) => a - b);
  const nearest = there.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a));
  return new UserError(
    `${run} has no captured choices of ${what} ${value}; the nearest is ${nearest}, and there are ${there.join(', ')}`,
  );
}

function listChoices(run: string): Found[] {
  const folder = join(run, CAPTURE_FOLDER);
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.safetensors')) : [];
  return files.flatMap((base) => {
    const file = join(folder, base);
    const reader = SafetensorsReader.open(file);
    try {
      return [...reader.tensors.keys()].flatMap((name) => {
        const match = /^routing\.layers\.(\d+)\.step(\d+)$/.exec(name);
        return match ? [{ layer: Number(match[1]), step: Number(match[2]), file, name }] : [];
      });
    } finally {
      reader.close();
    }
  });
}
