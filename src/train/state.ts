import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { readJsonFile, withFileErrors, writeFileAtomicallySync, writeFully } from '../files.js';
import {
  SafetensorsReader,
  type StoredType,
  type TensorToWrite,
  writeSafetensors,
} from '../model/safetensors.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Trainer } from './trainer.js';

/**
 * Training checkpoints: `checkpoints/step-00000100/` with `state.safetensors` (master weights, moments, router
 * biases) and `state.json` (step, data order, checksum). A folder is complete or absent: it is written under a
 * temporary name and renamed.
 */

const TENSORS = 'state.safetensors';
const JSON_FILE = 'state.json';
const FOLDER = /^step-(\d{8})$/;

const stateSchema = z.strictObject({
  version: z.literal(1),
  step: z.int().nonnegative(),
  /** State of the batch iterator, as it gave it. */
  data: z.unknown(),
  sha256: z.string(),
});

export interface SavedState {
  step: number;
  data: unknown;
}

/** Every tensor that a step changes, by its name in the file. */
function stateTensors(trainer: Trainer): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  for (const p of trainer.model.parameters.values()) tensors.set(p.name, p.value);
  for (const [name, { m, v }] of trainer.optimizer.moments) {
    tensors.set(`adamw.m.${name}`, m);
    tensors.set(`adamw.v.${name}`, v);
  }
  for (const [layer, { bias }] of trainer.model.routers) tensors.set(`router.${layer}.bias`, bias);
  return tensors;
}

const STORED: Partial<Record<Tensor['dtype'], StoredType>> = { f32: 'F32', bf16: 'BF16' };

const bytesOf = ({ data }: Tensor): Uint8Array<ArrayBuffer> =>
  new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);

/** Writes the checkpoint of the trainer's current step and deletes the oldest beyond `keep`. */
export function saveState(root: string, trainer: Trainer, data: unknown, keep: number): string {
  const folder = path.join(root, `step-${String(trainer.step).padStart(8, '0')}`);
  const temporary = `${folder}.tmp`;
  fs.rmSync(temporary, { recursive: true, force: true });
  const tensors: TensorToWrite[] = [...stateTensors(trainer)].map(([name, tensor]) => ({
    name,
    dtype: STORED[tensor.dtype]!,
    shape: tensor.shape,
    data: () => bytesOf(tensor),
  }));
  writeSafetensors(path.join(temporary, TENSORS), tensors);
  const state = { version: 1, step: trainer.step, data, sha256: sha256(path.join(temporary, TENSORS)) };
  writeFileAtomicallySync(path.join(temporary, JSON_FILE), (fd) =>
    writeFully(fd, Buffer.from(JSON.stringify(state)), 0),
  );
  withFileErrors('write', folder, () => {
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(temporary, folder);
  });
  for (const old of listStates(root).slice(keep)) fs.rmSync(old.folder, { recursive: true, force: true });
  return folder;
}

/** Checkpoints under `root`, newest first. */
export function listStates(root: string): { step: number; folder: string }[] {
  if (!fs.existsSync(root)) return [];
  return fs
    .readdirSync(root)
    .flatMap((name) => {
      const match = FOLDER.exec(name);
      return match ? [{ step: Number(match[1]), folder: path.join(root, name) }] : [];
    })
    .sort((a, b) => b.step - a.step);
}

/**
 * Restores the newest checkpoint that is whole.
 * @param notice is told of each damaged one that is passed over
 * @returns undefined where there is none
 * @throws UserError when there are some and none is whole
 */
export function restoreLatest(
  root: string,
  trainer: Trainer,
  notice: (line: string) => void,
): SavedState | undefined {
  const states = listStates(root);
  for (const { folder } of states) {
    try {
      return restoreState(folder, trainer);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      notice(`checkpoint ${folder} is unusable (${error.message}); trying the one before`);
    }
  }
  if (states.length === 0) return undefined;
  throw new UserError(
    `${root}: none of the ${states.length} checkpoints is usable; remove the folder to start again`,
  );
}

/** @throws UserError when the checkpoint is damaged or of another model */
export function restoreState(folder: string, trainer: Trainer): SavedState {
  const file = path.join(folder, TENSORS);
  const parsed = stateSchema.safeParse(readJsonFile(path.join(folder, JSON_FILE)));
  if (!parsed.success) throw new UserError(`${JSON_FILE} has an unknown layout`);
  const { step, data, sha256: expected } = parsed.data;
  if (sha256(file) !== expected) throw new UserError(`${TENSORS} does not match its checksum`);
  readTensors(file, stateTensors(trainer));
  for (const p of trainer.model.parameters.values()) p.valueChanged();
  trainer.step = step;
  return { step, data };
}

function readTensors(file: string, tensors: Map<string, Tensor>): void {
  const reader = SafetensorsReader.open(file);
  try {
    for (const [name, tensor] of tensors) {
      const entry = reader.entry(name);
      if (entry.dtype !== STORED[tensor.dtype] || entry.shape.join() !== tensor.shape.join()) {
        throw new UserError(
          `tensor ${name} is ${entry.dtype} [${entry.shape}], the run needs ${STORED[tensor.dtype]} [${tensor.shape}]`,
        );
      }
    }
    for (const [name, tensor] of tensors) bytesOf(tensor).set(reader.read(name));
  } finally {
    reader.close();
  }
}

function sha256(file: string): string {
  const hash = createHash('sha256');
  const descriptor = withFileErrors('read', file, () => fs.openSync(file, 'r'));
  try {
    const chunk = new Uint8Array(1 << 22);
    for (let n = fs.readSync(descriptor, chunk); n > 0; n = fs.readSync(descriptor, chunk))
      hash.update(chunk.subarray(0, n));
    return hash.digest('hex');
  } finally {
    fs.closeSync(descriptor);
  }
}
