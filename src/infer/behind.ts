import { Tensor, type TensorData } from '../tensor/tensor.js';

/**
 * Rows that the module is behind with, at most. Assumed: as many as a layer takes in one call; the weights are then read once for all
 * of them.
 */
export const MOST_BEHIND = 32;

/** Hidden states that the module has not read yet, of the last positions of a sequence. */
export class Behind {
  count = 0;
  private rows: Tensor | undefined;

  /** Keeps `count` rows more. @param hidden [M, D], of which they begin at `row` */
  add(hidden: Tensor, row: number, count: number): void {
    this.rows ??= Tensor.zeros([MOST_BEHIND, hidden.cols], hidden.dtype);
    copyRows(hidden, row, this.rows, this.count, count);
    this.count += count;
  }

  copyTo(out: Tensor, at: number): void {
    if (this.rows) copyRows(this.rows, 0, out, at, this.count);
  }
}

/** `count` rows from `row` of one tensor [*, D] to `at` of another. */
export function copyRows(from: Tensor, row: number, to: Tensor, at: number, count: number): void {
  const rows = from.rowsView(row, row + count).data as TensorData & ArrayLike<number>;
  to.rowsView(at, at + count).data.set(rows);
}
