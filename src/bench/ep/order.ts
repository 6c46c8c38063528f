import type { ExchangeCase, ExchangeResult } from './exchange.js';
import type { OverlapResult } from './overlap.js';

export type EpTask = { kind: 'exchange' | 'overlap'; what: ExchangeCase };
export type EpTaskResult = ExchangeResult | OverlapResult;

/** What ranks are told. */
export interface EpOrder {
  tasks: EpTask[];
  /** Ranks of a node; all of a host by default. */
  perNode?: number;
}

/** Begins the line with results. */
export const RESULT_MARK = '@@ep ';
