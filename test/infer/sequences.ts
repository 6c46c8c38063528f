import type { ModelRunner, StepBatch, StepResult } from '../../src/infer/runner.js';
import { Tensor } from '../../src/tensor/tensor.js';

/** New tokens of one sequence in a step. */
export interface Piece {
  sequence: number;
  tokens: readonly number[];
}

/** Feeds sequences to a runner step by step; pages come from all over the cache, so that no order is assumed. */
export class Sequences {
  private readonly pages: number[][] = [];
  private readonly lengths: number[] = [];
  private readonly free: number[];

  constructor(private readonly runner: ModelRunner) {
    const { pages } = runner.cache;
    // A stride that is coprime to the number of pages.
    const stride = pages % 5 === 0 ? 7 : 5;
    this.free = Array.from({ length: pages }, (_, i) => (i * stride + 3) % pages);
  }

  /** Cached tokens of a sequence. */
  length(sequence: number): number {
    return this.lengths[sequence] ?? 0;
  }

  /** A batch that appends `pieces`; all rows are wanted. */
  batch(pieces: readonly Piece[]): StepBatch {
    const bounds = [0];
    for (const { tokens } of pieces) bounds.push(bounds.at(-1)! + tokens.length);
    return {
      tokens: Int32Array.from(pieces.flatMap(({ tokens }) => [...tokens])),
      bounds: Int32Array.from(bounds),
      lengths: pieces.map(({ sequence }) => this.length(sequence)),
      pages: pieces.map(({ sequence, tokens }) => this.pagesOf(sequence, tokens.length)),
      wanted: Int32Array.from({ length: bounds.at(-1)! }, (_, i) => i),
    };
  }

  step(pieces: readonly Piece[]): StepResult {
    const result = this.runner.step(this.batch(pieces));
    for (const { sequence, tokens } of pieces) this.lengths[sequence] = this.length(sequence) + tokens.length;
    return result;
  }

  /** Forgets the tokens of a sequence from `length` on. */
  cut(sequence: number, length: number): void {
    this.lengths[sequence] = length;
  }

  /** `sequence` begins with the first `tokens` of `source`: whole pages are shared, the last one is copied. */
  fork(source: number, sequence: number, tokens: number): void {
    const { pageTokens } = this.runner.cache;
    const shared = Math.floor(tokens / pageTokens);
    this.pages[sequence] = this.pages[source]!.slice(0, shared);
    this.lengths[sequence] = tokens;
    if (tokens % pageTokens === 0) return;
    const copy = this.free.pop()!;
    this.runner.copyPage(this.pages[source]![shared]!, copy);
    this.pages[sequence]!.push(copy);
  }

  private pagesOf(sequence: number, more: number): Int32Array {
    this.pages[sequence] ??= [];
    const own = this.pages[sequence];
    while (own.length * this.runner.cache.pageTokens < this.length(sequence) + more)
      own.push(this.free.pop()!);
    return Int32Array.from(own);
  }
}

/** Copies rows of a result, which the next call overwrites. */
export const copyRows = ({ data, cols }: Tensor, from: number, to: number): Float32Array =>
  Float32Array.from(data.subarray(from * cols, to * cols));

/** A copy of a tensor in memory of its own. */
export const copyOf = (t: Tensor): Tensor => new Tensor(t.shape, t.dtype, t.data.slice() as Float32Array);

/** Largest |ours − theirs| over the largest |theirs|; not a number where ours has one. */
export function relativeError(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  let [error, largest] = [0, 0];
  for (let i = 0; i < theirs.length; i++) {
    const difference = Math.abs(ours[i]! - theirs[i]!);
    if (!(difference <= error)) error = difference;
    largest = Math.max(largest, Math.abs(theirs[i]!));
  }
  return ours.length === theirs.length ? error / largest : Number.NaN;
}
