import type { Backend } from '../tensor/backend.js';
import { allocate } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';

/** Weights of all tokens, in memory that the next call overwrites. */
export interface TokenWeights {
  /** f32 [V]: exp((logit − peak)/temperature). */
  weights: Float32Array;
  /** Largest logit. */
  peak: number;
  /** Sum of the weights. */
  total: number;
}

/** The passes over a whole vocabulary that a backend does for one row of logits, with memory for them. V vocabulary. */
export class LogitOps {
  private readonly index = Tensor.i32([0]);
  /** f32 [1, 2]. */
  private readonly sums: Tensor;
  /** f32 [1, V]. */
  private readonly scratch: Tensor;

  constructor(
    private readonly backend: Backend,
    readonly vocabulary: number,
  ) {
    this.sums = allocate(backend, [1, 2], 'f32');
    this.scratch = allocate(backend, [1, vocabulary], 'f32');
  }

  /** The most likely token by logits f32 [1, V], the first of several. @throws Error where logits are no numbers */
  argmax(logits: Tensor): number {
    this.backend.argmax(logits, this.index);
    const best = this.index.data[0]!;
    checkFinite(logits.data[best]!);
    return best;
  }

  /** @param logits f32 [1, V] @throws Error where logits are no numbers */
  weights(logits: Tensor, temperature: number): TokenWeights {
    this.backend.softmaxWeights(logits, temperature, this.scratch, this.sums);
    const [peak, total] = this.sums.data as Float32Array;
    checkFinite(total! > 0 ? peak! : Number.NaN);
    return { weights: this.scratch.data as Float32Array, peak: peak!, total: total! };
  }
}

/** Broken weights, or an overflow. */
function checkFinite(logit: number): void {
  if (!Number.isFinite(logit)) throw new Error(`the model computed ${logit} as its largest logit`);
}
