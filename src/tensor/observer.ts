import type { Parameter } from './parameter.js';
import type { Tensor } from './tensor.js';

/** Where the choices of T tokens went: K experts each, of E. */
export interface Choice {
  /** i32 [E+1]: rows of each expert. */
  offsets: Tensor;
  /** i32 [T, K]: row of each choice. */
  slot: Tensor;
}

/**
 * Is shown tensors of a pass as they arise, and may copy what it sees but neither change nor keep it. Reading waits for
 * the device, so that passes are observed only where somebody asks: in validation and where tensors are captured.
 */
export interface Observer {
  /** y [M, N] = x [M, K]·Wᵀ has been computed; where W is grouped, rows offsets[g] to offsets[g + 1] met W[g]: i32 [G+1]. */
  linear?(w: Parameter, x: Tensor, y: Tensor, offsets?: Tensor): void;
  /** The gradient dy [M, N] of that y is about to go back through W. */
  linearBackward?(w: Parameter, dy: Tensor): void;
  /** The router with this gate has chosen experts. */
  routed?(gate: Parameter, choice: Choice): void;
}
