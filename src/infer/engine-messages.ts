/** What the two sides of an engine in a worker thread, or on another rank, tell each other; all of it survives structured cloning. */
import { UserError } from '../errors.js';
import { agree, isAgreed } from '../expert/agreement.js';
import type { ServingRanks } from '../expert/ranks.js';
import {
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  type GenerateEvent,
  type GenerateRequest,
  QueueFullError,
  type WeightPaging,
} from './engine.js';

export interface WorkerStart {
  folder: string;
  options: EngineOptions;
  /** Where the engine spans the ranks of an MPI job, whose first one this process is. */
  ranks: ServingRanks | undefined;
}

/** What can be asked of an engine. */
export interface Answers {
  stats: EngineStats;
  paging: WeightPaging;
}
export type Question = keyof Answers;

export type ToEngine =
  | { type: 'generate'; id: number; request: GenerateRequest }
  | { type: 'cancel'; id: number }
  | { type: 'ask'; id: number; question: Question }
  | { type: 'close' };

export type FromEngine =
  | { type: 'opened'; info: EngineInfo }
  | { type: 'notOpened'; error: SentError }
  /** What came in one turn of the thread, which is what a step gave: a message for each would cost more than the events. */
  | { type: 'events'; events: { id: number; event: GenerateEvent }[] }
  | { type: 'failed'; id: number; error: SentError }
  | { type: 'answer'; id: number; answer: Answers[Question] }
  /** The engine ends by itself. */
  | { type: 'died'; error: SentError }
  | { type: 'closed' };

/** An error without its class, which cloning loses. */
export interface SentError {
  name: string;
  message: string;
  stack: string | undefined;
  /** Whether all ranks know of it. */
  agreed: boolean;
}

export const sendError = (error: Error): SentError => ({
  name: error.name,
  message: error.message,
  stack: error.stack,
  agreed: isAgreed(error),
});

/** The error as it was thrown, as far as callers tell kinds apart. */
export function receiveError({ name, message, stack, agreed }: SentError): Error {
  const error = errorOf(name, message) ?? Object.assign(new Error(message), { name, stack });
  return agreed ? agree(error) : error;
}

function errorOf(name: string, message: string): Error | undefined {
  if (name === 'UserError') return new UserError(message);
  if (name === 'QueueFullError') return new QueueFullError(message);
  return undefined;
}
