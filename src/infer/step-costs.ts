/**
 * What a step costs by its rows, as running steps show: seconds = fixed + perRow · rows. Fixed is what is read whoever is there:
 * of a model of experts nearly all weights, as soon as a step has a few dozen rows.
 */

/** Rows that cost as much as the fixed part, before any step is measured. Assumed. */
const FIRST_BALANCE = 128;
/** Between these it is believed: below, prompts would never be read, above, nothing is gained. Assumed. */
const LEAST_BALANCE = 32;
const MOST_BALANCE = 1024;
/** Weight of all earlier steps against a new one: some fifty steps count. Assumed. */
const MEMORY = 0.98;
/** Steps before the line through them counts. Assumed. */
const ENOUGH = 8;
/** Standard deviation of rows, relative to their mean, from which on a slope can be told. Assumed. */
const LEAST_SPREAD = 0.1;
/** A step that took so many times what was expected was disturbed, and counts as this. Assumed. */
const DISTURBED = 2;
/**
 * A step in which prompts are read takes at most so many times the step that reads next to none. Assumed: whoever decodes keeps a
 * third of the speed while prompts come, and prompts, which pay the fixed part once in so many rows, are read at two thirds of theirs.
 */
const STRETCH = 3;

export class StepCosts {
  /** Decayed sums over steps. */
  private n = 0;
  private rows = 0;
  private seconds = 0;
  private rowsSquared = 0;
  private product = 0;
  private seen = 0;
  private line: { fixed: number; perRow: number } | undefined;

  /** Notes a step that read prompt tokens. */
  note(rows: number, seconds: number): void {
    const expected = this.line && this.line.fixed + this.line.perRow * rows;
    const counted = expected ? Math.min(seconds, DISTURBED * expected) : seconds;
    this.n = MEMORY * this.n + 1;
    this.rows = MEMORY * this.rows + rows;
    this.seconds = MEMORY * this.seconds + counted;
    this.rowsSquared = MEMORY * this.rowsSquared + rows ** 2;
    this.product = MEMORY * this.product + rows * counted;
    if (++this.seen >= ENOUGH) this.fit();
  }

  /** Rows that cost as much as the fixed part of a step. */
  get balance(): number {
    if (!this.line) return FIRST_BALANCE;
    return Math.min(MOST_BALANCE, Math.max(LEAST_BALANCE, this.line.fixed / this.line.perRow));
  }

  /** Prompt tokens that a step may read beside so many decoding rows: fixed + perRow·(d + p) ≤ STRETCH·(fixed + perRow·d). */
  promptTokens(decodingRows: number): number {
    return Math.floor((STRETCH - 1) * (this.balance + decodingRows));
  }

  /** The least squares of what is remembered; steps that are all alike say nothing about a slope. */
  private fit(): void {
    const mean = this.rows / this.n;
    const variance = this.rowsSquared / this.n - mean ** 2;
    if (variance < (LEAST_SPREAD * mean) ** 2) return;
    const perRow = (this.product / this.n - (mean * this.seconds) / this.n) / variance;
    const fixed = this.seconds / this.n - perRow * mean;
    if (perRow > 0 && fixed > 0) this.line = { fixed, perRow };
  }
}
