import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { makeFolder, readJsonFile, withFileErrors, writeFileAtomicallySync, writeFully } from '../files.js';
import {
  SafetensorsReader,
  type StoredTensor,
  type StoredType,
  type TensorToWrite,
  writeSafetensors,
} from '../model/safetensors.js';
import type { Parameter } from '../tensor/parameter.js';
import { elementCount, Tensor } from '../tensor/tensor.js';
import type { Trainer } from './trainer.js';

/**
 * Training checkpoints: `checkpoints/step-00000100/` with `state.safetensors` (master weights, moments, router
 * biases) and `state.json` (step, data order, checksum). A folder is complete or absent: it is written under a
 * temporary name and renamed. Over several ranks each writes a file with what it updates, in pieces named NAME@ELEMENT after
 * their first element; any number of ranks, one too, resumes from either kind.
 */

const TENSORS = 'state.safetensors';
const JSON_FILE = 'state.json';
const FOLDER = /^step-(\d{8})$/;

const common = {
  step: z.int().nonnegative(),
  /** State of the batch iterator, as it gave it. */
  data: z.unknown(),
};
const stateSchema = z.discriminatedUnion('version', [
  z.strictObject({ version: z.literal(1), ...common, sha256: z.string() }),
  /** Of several ranks: checksums by file name. */
  z.strictObject({ version: z.literal(2), ...common, files: z.record(z.string(), z.string()) }),
]);

export interface SavedState {
  step: number;
  data: unknown;
}

/** Part of a tensor of the state: elements from `start` on. */
interface Piece {
  name: string;
  start: number;
  tensor: Tensor;
  /** Whether it is the whole tensor. */
  whole: boolean;
}

/** Everything that a step of this process needs to find as it was. */
function neededPieces(trainer: Trainer): Piece[] {
  const { model } = trainer;
  const values = [...model.parameters.values()].map((p) => pieceOf(trainer, p.name, p, 0, p.value));
  return [...values, ...momentPieces(trainer), ...biasPieces(trainer)];
}

/** What this process writes: what it updates, and rank 0 the routers' biases. */
function ownPieces(trainer: Trainer): Piece[] {
  const values = trainer.optimizer.segments.map(({ parameter: p, from, to }) =>
    pieceOf(trainer, p.name, p, from, from === 0 && to === p.value.size ? p.value : part(p.value, from, to)),
  );
  const biases = trainer.team?.leads === false ? [] : biasPieces(trainer);
  return [...values, ...momentPieces(trainer), ...biases];
}

const part = (t: Tensor, from: number, to: number): Tensor =>
  new Tensor([to - from], t.dtype, t.data.subarray(from, to) as Float32Array);

const momentPieces = (trainer: Trainer): Piece[] =>
  trainer.optimizer.segments.flatMap(({ parameter: p, from, m, v }) => [
    pieceOf(trainer, `adamw.m.${p.name}`, p, from, m),
    pieceOf(trainer, `adamw.v.${p.name}`, p, from, v),
  ]);

const biasPieces = ({ model }: Trainer): Piece[] =>
  [...model.routers].map(([layer, { bias }]) => ({
    name: `router.${layer}.bias`,
    start: 0,
    tensor: bias,
    whole: true,
  }));

/** @param from first element of `tensor` in what this process holds of the parameter */
function pieceOf({ model, team }: Trainer, name: string, p: Parameter, from: number, tensor: Tensor): Piece {
  return { name, start: model.elementsBefore(p) + from, tensor, whole: team === undefined };
}

const STORED: Partial<Record<Tensor['dtype'], StoredType>> = { f32: 'F32', bf16: 'BF16' };

const bytesOf = ({ data }: Tensor): Uint8Array<ArrayBuffer> =>
  new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);

/** Writes the checkpoint of the trainer's current step and deletes the oldest beyond `keep`; over ranks, collective. */
export async function saveState(
  root: string,
  trainer: Trainer,
  data: unknown,
  keep: number,
): Promise<string> {
  const { step, team } = trainer;
  const folder = path.join(root, `step-${String(step).padStart(8, '0')}`);
  const temporary = `${folder}.tmp`;
  const lead = async (work: () => void) => (team ? team.together(() => team.leads && work()) : work());
  await lead(() => {
    fs.rmSync(temporary, { recursive: true, force: true });
    makeFolder(temporary);
  });
  const file = team ? rankFile(team.rank, team.size) : TENSORS;
  const write = () => writePieces(path.join(temporary, file), ownPieces(trainer));
  const digest = team ? await team.together(write) : write();
  const digests = team ? team.gather(Buffer.from(digest)).map((d) => Buffer.from(d).toString()) : [digest];
  await lead(() => {
    const files = Object.fromEntries(digests.map((d, rank) => [rankFile(rank, digests.length), d]));
    const state = team ? { version: 2, step, data, files } : { version: 1, step, data, sha256: digest };
    writeFileAtomicallySync(path.join(temporary, JSON_FILE), (fd) =>
      writeFully(fd, Buffer.from(JSON.stringify(state)), 0),
    );
    withFileErrors('write', folder, () => {
      fs.rmSync(folder, { recursive: true, force: true });
      fs.renameSync(temporary, folder);
    });
    for (const old of listStates(root).slice(keep)) fs.rmSync(old.folder, { recursive: true, force: true });
  });
  return folder;
}

const rankFile = (rank: number, of: number): string =>
  `state-${String(rank).padStart(5, '0')}-of-${String(of).padStart(5, '0')}.safetensors`;

/** @returns the file's checksum */
function writePieces(file: string, pieces: readonly Piece[]): string {
  const tensors: TensorToWrite[] = pieces.map(({ name, start, tensor, whole }) => ({
    name: whole ? name : `${name}@${start}`,
    dtype: STORED[tensor.dtype]!,
    shape: tensor.shape,
    data: () => bytesOf(tensor),
  }));
  writeSafetensors(file, tensors);
  return sha256(file);
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

/** Restores the checkpoint in `folder`. @throws UserError when it is damaged or of another model */
export function restoreState(folder: string, trainer: Trainer): SavedState {
  const parsed = stateSchema.safeParse(readJsonFile(path.join(folder, JSON_FILE)));
  if (!parsed.success) throw new UserError(`${JSON_FILE} has an unknown layout`);
  const state = parsed.data;
  const files = state.version === 1 ? { [TENSORS]: state.sha256 } : state.files;
  for (const [name, expected] of Object.entries(files)) {
    if (sha256(path.join(folder, name)) !== expected)
      throw new UserError(`${name} does not match its checksum`);
  }
  const stored = StoredPieces.open(Object.keys(files).map((name) => path.join(folder, name)));
  try {
    const needed = neededPieces(trainer);
    for (const piece of needed) stored.check(piece);
    for (const piece of needed) stored.read(piece);
  } finally {
    stored.close();
  }
  for (const p of trainer.model.parameters.values()) p.valueChanged();
  trainer.step = state.step;
  return { step: state.step, data: state.data };
}

/** Pieces of tensors in several files, read by elements. */
class StoredPieces {
  private readonly pieces = new Map<
    string,
    { start: number; end: number; entry: StoredTensor; reader: SafetensorsReader }[]
  >();

  private constructor(private readonly readers: readonly SafetensorsReader[]) {
    for (const reader of readers) {
      for (const entry of reader.tensors.values()) {
        const [name, start = '0'] = entry.name.split('@') as [string, string?];
        const count = elementCount(entry.shape);
        const list = this.pieces.get(name) ?? [];
        list.push({ start: Number(start), end: Number(start) + count, entry, reader });
        this.pieces.set(name, list);
      }
    }
  }

  static open(files: readonly string[]): StoredPieces {
    return new StoredPieces(files.map((file) => SafetensorsReader.open(file)));
  }

  /** @throws UserError unless all of `piece` is there in its type */
  check({ name, start, tensor, whole }: Piece): void {
    const stored = STORED[tensor.dtype]!;
    const overlaps = this.overlaps(name, start, tensor.size);
    const found = overlaps.reduce((n, { from, to }) => n + to - from, 0);
    const total = (this.pieces.get(name) ?? []).reduce((n, { end }) => Math.max(n, end), 0);
    const fits = found === tensor.size && (!whole || total === tensor.size);
    if (fits && overlaps.every(({ entry }) => entry.dtype === stored)) return;
    throw new UserError(
      `tensor ${name} has ${total} elements of type ${overlaps[0]?.entry.dtype ?? 'none'}, ` +
        `the run needs ${stored} [${tensor.shape}]`,
    );
  }

  /** Fills `piece`. */
  read({ name, start, tensor }: Piece): void {
    const out = bytesOf(tensor);
    const width = out.length / tensor.size;
    for (const { from, to, at, entry, reader } of this.overlaps(name, start, tensor.size)) {
      out.set(reader.read(entry.name, (from - at) * width, (to - from) * width), (from - start) * width);
    }
  }

  close(): void {
    for (const reader of this.readers) reader.close();
  }

  /** What is stored of `count` elements from `start` on: its elements from..to, in an entry that begins with element `at`. */
  private overlaps(name: string, start: number, count: number) {
    return (this.pieces.get(name) ?? []).flatMap(({ start: at, end, entry, reader }) => {
      const [from, to] = [Math.max(at, start), Math.min(end, start + count)];
      return from < to ? [{ from, to, at, entry, reader }] : [];
    });
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
