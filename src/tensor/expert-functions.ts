import type { Wire } from '../spec/precision.js';
import type { RouterShape } from './backend.js';
import { isIdentity } from './functions.js';
import type { Tape } from './tape.js';
import type { Tensor } from './tensor.js';

/**
 * Differentiable functions of the mixture of experts, in the manner of `functions.ts`.
 * Legend as in `backend.ts`: T tokens, D hidden size, E experts, K experts per token, R = T·K dispatched rows.
 */

/** Rows of dispatch: which token each row comes from and where each choice of a token lies. */
export interface Dispatch {
  /** i32 [E+1] rows of each expert. */
  offsets: Tensor;
  /** i32 [R]. */
  source: Tensor;
  /** i32 [T, K]. */
  slot: Tensor;
}

/** Choice of experts: ids i32 [T, K] and their weights f32 [T, K], differentiable through the weights. */
export function route(
  tape: Tape,
  logits: Tensor,
  bias: Tensor,
  shape: RouterShape,
  balance: { sequences: Tensor; factor: number; loss: Tensor; load: Tensor },
): { ids: Tensor; weights: Tensor; dispatch: Dispatch } {
  const { backend } = tape;
  const tokens = logits.rows;
  const ids = tape.alloc([tokens, shape.topK], 'i32');
  const weights = tape.alloc([tokens, shape.topK], 'f32');
  backend.route(logits, bias, shape, ids, weights, balance.load);
  const dispatch = {
    offsets: tape.alloc([shape.experts + 1], 'i32'),
    source: tape.alloc([tokens * shape.topK], 'i32'),
    slot: tape.alloc([tokens, shape.topK], 'i32'),
  };
  backend.dispatchPlan(ids, dispatch.offsets, dispatch.source, dispatch.slot);
  tape.record({
    name: 'route',
    outputs: [weights],
    saved: [logits, ids, dispatch.offsets, dispatch.source, dispatch.slot],
    backward: () => {
      const dlogits = tape.alloc(logits.shape, 'f32');
      const saved = { logits, ids, sequences: balance.sequences };
      backend.routeBackward(weights.grad!, saved, shape, balance.factor, dlogits, balance.loss);
      tape.addGrad(logits, dlogits);
    },
  });
  return { ids, weights, dispatch };
}

/** Rows of x [T, D] in the order of their experts → [R, D]. */
export function permute(tape: Tape, x: Tensor, dispatch: Dispatch): Tensor {
  const rows = tape.alloc([dispatch.source.size, x.cols], x.dtype);
  const forward = () => tape.backend.permute(x, dispatch.source, rows);
  forward();
  tape.record({
    name: 'permute',
    outputs: [rows],
    saved: [dispatch.slot],
    backward: () => {
      const dx = tape.alloc(x.shape, x.dtype);
      tape.backend.unpermute(rows.grad!, dispatch.slot, undefined, dx);
      tape.addGrad(x, dx);
    },
  });
  return rows;
}

/**
 * Expert outputs [R, D] as they arrive at their tokens in format `wire`. The gradient passes unchanged: rounding, whose own is
 * zero almost everywhere, is taken for the identity (straight-through), and backward's dispatch is not rounded.
 */
export function throughWire(tape: Tape, rows: Tensor, wire: Wire): Tensor {
  if (wire.format === 'fp32' || isIdentity(rows, wire)) return rows;
  const arrived = tape.alloc(rows.shape, rows.dtype);
  tape.backend.throughWire(rows, wire, arrived);
  tape.record({
    name: 'wire',
    outputs: [arrived],
    saved: [],
    backward: () => tape.addGrad(rows, arrived.grad!),
  });
  return arrived;
}

/** y[t] = Σ_k weights[t,k]·rows[slot[t,k]]: rows [R, D] back to tokens [T, D]. */
export function unpermute(tape: Tape, rows: Tensor, weights: Tensor, dispatch: Dispatch): Tensor {
  const y = tape.alloc([weights.rows, rows.cols], rows.dtype);
  tape.backend.unpermute(rows, dispatch.slot, weights, y);
  tape.record({
    name: 'unpermute',
    outputs: [y],
    saved: [rows, weights, dispatch.slot],
    backward: () => {
      const drows = tape.alloc(rows.shape, rows.dtype);
      const dweights = tape.alloc(weights.shape, 'f32');
      tape.backend.unpermuteBackward(y.grad!, rows, dispatch.slot, weights, drows, dweights);
      tape.addGrad(rows, drows);
      tape.addGrad(weights, dweights);
    },
  });
  return y;
}
