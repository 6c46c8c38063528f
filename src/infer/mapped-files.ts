import fs from 'node:fs';
import { withFileErrors } from '../files.js';
import type { StoredTensor } from '../model/safetensors.js';
import type { Backend } from '../tensor/backend.js';

/** Bytes that are mapped at a time; a tensor belongs to the stretch that it begins in. Few maps, and none beyond what Node 20 holds. */
const STRETCH = 2 ** 30;

/** The tensors of a checkpoint's files, mapped: pages are read when they are touched. */
export class MappedFiles {
  private readonly stretches = new Map<string, Uint8Array>();
  private readonly ends: ReadonlyMap<string, number>;

  /** @param tensors all that may be asked for */
  constructor(
    private readonly backend: Backend,
    tensors: Iterable<StoredTensor>,
  ) {
    const ends = new Map<string, number>();
    for (const tensor of tensors) {
      const key = stretchOf(tensor);
      ends.set(key, Math.max(ends.get(key) ?? 0, tensor.position + tensor.bytes));
    }
    this.ends = ends;
  }

  /** Bytes of a tensor, where the file has them. @throws UserError when the file cannot be read */
  bytes(tensor: StoredTensor): Uint8Array {
    const key = stretchOf(tensor);
    const start = Math.floor(tensor.position / STRETCH) * STRETCH;
    let stretch = this.stretches.get(key);
    if (!stretch) {
      stretch = this.map(tensor.file, start, this.ends.get(key)! - start);
      this.stretches.set(key, stretch);
    }
    return stretch.subarray(tensor.position - start, tensor.position - start + tensor.bytes);
  }

  private map(file: string, position: number, bytes: number): Uint8Array {
    withFileErrors('read', file, () => fs.accessSync(file, fs.constants.R_OK));
    return new Uint8Array(this.backend.mapFile(file, position, bytes));
  }
}

const stretchOf = ({ file, position }: StoredTensor): string => `${Math.floor(position / STRETCH)} ${file}`;
