import type { Tape } from '../tensor/tape.js';
import type { Tensor } from '../tensor/tensor.js';

/** Routed experts `from`..`to` of each layer: those that a process holds. */
export interface ExpertRange {
  from: number;
  to: number;
}

/**
 * The way of tokens to routed experts of other processes and back (src/expert). Every process calls it for the same layers
 * in the same order. Legend: T tokens of this process, K experts a token, D hidden size, R rows of this process's experts.
 */
export interface ExpertExchange {
  /** Sends u [T, D] to its experts ids i32 [T, K]; results will be weighted with weights f32 [T, K]. */
  send(tape: Tape, u: Tensor, ids: Tensor, weights: Tensor): ExpertJourney;
}

/** One layer's tokens on their way; its functions are called in this order, each once. */
export interface ExpertJourney {
  /** Waits for rows [R, D] of this process's experts, and their bounds i32 [experts here + 1]. */
  receive(): { rows: Tensor; offsets: Tensor };
  /** Sends what the experts made of them [R, D]. */
  sendBack(out: Tensor): void;
  /** Waits for the weighted sums [T, D]. */
  receiveBack(): Tensor;
}
