import type { StepBatch } from './runner.js';
import { type Portion, wantedRows } from './scheduler.js';
import type { Sequence } from './sequence.js';

/** Rows of a step whose positions stay in the cache. Legend as in `runner.ts`: M rows, D hidden size. */
export interface KeptRows {
  sequence: Sequence;
  /** First row of the sequence in the step. */
  row: number;
  /** Position of that row. */
  from: number;
  count: number;
  /** Whether a token is to be drafted behind them. */
  drafts: boolean;
  /** Whether the sequence ends with this step. */
  ends: boolean;
}

/** Rows that the MTP module reads: kept ones, and before them those that it is behind with. */
export interface ModuleRows extends KeptRows {
  behind: number;
}

/** Rows of one sequence in a batch to build. */
interface Part {
  sequence: Sequence;
  /** Position of the first row. */
  from: number;
  tokens: ArrayLike<number>;
  /** How many of the last rows need logits. */
  wanted: number;
}

/** The main model's batch: known tokens, and drafted ones to be verified behind them. */
export function stepBatch(portions: readonly Portion[]): StepBatch {
  return build(
    portions.map((portion) => {
      const { sequence, count, drafted } = portion;
      const { cached, tokens, draft } = sequence;
      const known = tokens.view.subarray(cached, cached + count);
      return {
        sequence,
        from: cached,
        tokens: drafted ? [...known, draft!.token] : known,
        wanted: wantedRows(portion),
      };
    }),
  );
}

/** The MTP module's batch: at each position the token after it. */
export function draftBatch(rows: readonly ModuleRows[]): StepBatch {
  return build(
    rows.map(({ sequence, from, count, drafts }) => ({
      sequence,
      from,
      tokens: sequence.tokens.view.subarray(from + 1, from + count + 1),
      wanted: drafts ? 1 : 0,
    })),
  );
}

function build(parts: readonly Part[]): StepBatch {
  const bounds = new Int32Array(parts.length + 1);
  const wanted: number[] = [];
  parts.forEach((part, s) => {
    const end = bounds[s]! + part.tokens.length;
    bounds[s + 1] = end;
    for (let row = end - part.wanted; row < end; row++) wanted.push(row);
  });
  const tokens = new Int32Array(bounds[parts.length]!);
  parts.forEach((part, s) => {
    tokens.set(part.tokens, bounds[s]!);
  });
  return {
    tokens,
    bounds,
    lengths: parts.map(({ from }) => from),
    pages: parts.map(({ sequence }) => Int32Array.from(sequence.pages)),
    wanted: Int32Array.from(wanted),
  };
}
