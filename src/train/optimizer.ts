import type { AdamWStep, Backend } from '../tensor/backend.js';
import { allocate, type Parameter } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';
import type { TrainConfig } from './config.js';

/** Size of the gradient, and the parameters where it is not finite. */
export interface GradientNorm {
  /** Global 2-norm over all parameters. */
  norm: number;
  nonFinite: string[];
}

/** AdamW over FP32 master weights with moments in the recipe's format [TR §3.3.3]. */
export class Optimizer {
  /** First and second moments by parameter name. */
  readonly moments = new Map<string, { m: Tensor; v: Tensor }>();

  constructor(
    private readonly backend: Backend,
    private readonly parameters: ReadonlyMap<string, Parameter>,
    private readonly config: TrainConfig,
    momentType: 'f32' | 'bf16',
  ) {
    for (const { name, value } of parameters.values()) {
      const [m, v] = [0, 1].map(() => allocate(backend, value.shape, momentType)) as [Tensor, Tensor];
      backend.fill(m, 0);
      backend.fill(v, 0);
      this.moments.set(name, { m, v });
    }
  }

  /** Reads all gradients once. */
  gradientNorm(): GradientNorm {
    const square = Tensor.zeros([1], 'f32');
    const nonFinite: string[] = [];
    let total = 0;
    for (const p of this.parameters.values()) {
      this.backend.sumOfSquares(p.gradient(), square);
      const value = square.data[0]!;
      if (!Number.isFinite(value)) nonFinite.push(p.name);
      total += value;
    }
    return { norm: Math.sqrt(total), nonFinite };
  }

  /**
   * Updates all parameters and clears the gradients.
   * @param count steps done before this one, for the bias correction
   */
  step(count: number, learningRate: number, norm: number): void {
    const { beta1, beta2, epsilon, weightDecay, clipNorm } = this.config;
    const common: AdamWStep = {
      learningRate,
      beta1,
      beta2,
      epsilon,
      weightDecay,
      gradientScale: Math.min(1, clipNorm / (norm + 1e-6)),
      biasCorrection1: 1 - beta1 ** (count + 1),
      biasCorrection2: 1 - beta2 ** (count + 1),
    };
    for (const p of this.parameters.values()) {
      const { m, v } = this.moments.get(p.name)!;
      // Vectors (norm weights) are not decayed, as usual.
      const step = p.value.shape.length === 1 ? { ...common, weightDecay: 0 } : common;
      this.backend.adamw(p.value, p.gradient(), m, v, step);
      p.valueChanged();
    }
    this.clearGradients();
  }

  clearGradients(): void {
    for (const p of this.parameters.values()) p.clearGradient();
  }
}
