import type { TokenMask } from './sampler.js';

/** What a continuation must look like, followed token by token. */
export interface Constraint {
  /** Tokens allowed next. */
  readonly mask: TokenMask;
  /** Whether nothing may follow. */
  readonly complete: boolean;
  /** Takes a token that the mask allows; `mask` is that of the next position after `refresh`. */
  accept(id: number): void;
  /** Computes the mask. */
  refresh(): Promise<void>;
  /** Frees what the constraint holds. */
  dispose(): void;
}
