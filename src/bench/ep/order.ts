import type { ExchangeCase, ExchangeResult } from './exchange.js';
import type { TrainingCase, TrainingResult } from './training.js';

export type EpTask = { kind: 'exchange'; what: ExchangeCase } | { kind: 'training'; what: TrainingCase };
export type EpTaskResult = ExchangeResult | TrainingResult;

/** What ranks are told. */
export interface EpOrder {
  tasks: EpTask[];
  /** Ranks of a node; all of a host by default. */
  perNode?: number;
  /** A host's interfaces on the planes of the network, where it has planes. */
  planes?: readonly string[] | undefined;
}

/** Begins the line with results. */
export const RESULT_MARK = '@@ep ';
