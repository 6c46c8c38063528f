import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../errors.js';
import { isFloating, SafetensorsReader, type StoredTensor } from '../model/safetensors.js';
import type { Sample } from '../numerics/compare.js';

/**
 * What `fathom train --capture` keeps of a run: RUN/capture/*.safetensors, in which a tensor is named KIND.WHAT, for
 * example `activations.layers.3.mlp.down_proj.step100`. WHAT is free. Matrices are [rows, cols] with the contraction or, for
 * `combine`, the hidden size last.
 */
export const CAPTURE_FOLDER = 'capture';
export const CAPTURE_KINDS = ['weights', 'activations', 'gradients', 'combine'] as const;

/** Tensors to be read one by one. */
export interface SampleSource {
  readonly count: number;
  samples(): Generator<Sample>;
}

/** The captured tensors of a run, by kind. @throws UserError where there are none, or where a kind is missing */
export function openCapture(run: string): SampleSource {
  const folder = join(run, CAPTURE_FOLDER);
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.safetensors')) : [];
  if (files.length === 0) {
    throw new UserError(`${run} has no captured tensors (${folder}/*.safetensors); train it with --capture`);
  }
  const readers = files.sort().map((file) => SafetensorsReader.open(join(folder, file)));
  const found = CAPTURE_KINDS.flatMap((kind) => ofKind(readers, kind));
  const missing = CAPTURE_KINDS.filter((kind) => !found.some((tensor) => tensor.kind === kind));
  if (missing.length > 0) {
    throw new UserError(`${folder} lacks tensors named ${missing.map((kind) => `${kind}.*`).join(', ')}`);
  }
  return sourceOf(found);
}

/** All floating-point tensors of a safetensors file or checkpoint folder, as one kind. */
export function openTensors(source: string, kind: string): SampleSource {
  const reader = SafetensorsReader.open(source);
  const found = [...reader.tensors.values()].filter(isUsable).map((tensor) => ({ kind, tensor, reader }));
  if (found.length === 0) throw new UserError(`${source} holds no floating-point tensors`);
  return sourceOf(found);
}

interface Found {
  kind: string;
  tensor: StoredTensor;
  reader: SafetensorsReader;
}

const isUsable = ({ dtype, shape }: StoredTensor): boolean => isFloating(dtype) && !shape.includes(0);

const ofKind = (readers: readonly SafetensorsReader[], kind: string): Found[] =>
  readers.flatMap((reader) =>
    [...reader.tensors.values()]
      .filter((tensor) => tensor.name.startsWith(`${kind}.`) && isUsable(tensor))
      .map((tensor) => ({ kind, tensor, reader })),
  );

/** One tensor in memory at a time; files are closed after the last. */
function sourceOf(found: readonly Found[]): SampleSource {
  return {
    count: found.length,
    *samples() {
      try {
        for (const { kind, tensor, reader } of found) {
          const values = reader.readFloats(tensor.name);
          yield { kind, name: tensor.name, values, cols: tensor.shape.at(-1) ?? 1 };
        }
      } finally {
        for (const { reader } of found) reader.close();
      }
    },
  };
}
