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

/** Elements `from`..`to` of a parameter, which this process updates, with their first and second moments. */
export interface Segment {
  parameter: Parameter;
  from: number;
  to: number;
  m: Tensor;
  v: Tensor;
}

/** What a trainer needs of an optimizer. */
export interface StepOptimizer {
  /** What this process updates. */
  readonly segments: readonly Segment[];
  /** Reads all gradients once. */
  gradientNorm(): GradientNorm;
  /**
   * Updates all parameters and clears the gradients.
   * @param count steps done before this one, for the bias correction
   */
  step(count: number, learningRate: number, norm: number): void;
  clearGradients(): void;
}

/** AdamW over FP32 master weights with moments in the recipe's format [TR §3.3.3]. */
export class Optimizer implements StepOptimizer {
  /** Whole parameters. */
  readonly segments: Segment[] = [];

  constructor(
    private readonly backend: Backend,
    private readonly parameters: ReadonlyMap<string, Parameter>,
    private readonly config: TrainConfig,
    momentType: 'f32' | 'bf16',
  ) {
    for (const parameter of parameters.values()) {
      const { value } = parameter;
      const [m, v] = [0, 1].map(() => allocate(backend, value.shape, momentType)) as [Tensor, Tensor];
      backend.fill(m, 0);
      backend.fill(v, 0);
      this.segments.push({ parameter, from: 0, to: value.size, m, v });
    }
  }

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

  step(count: number, learningRate: number, norm: number): void {
    for (const { parameter: p, m, v } of this.segments) {
      this.backend.adamw(p.value, p.gradient(), m, v, stepOf(this.config, p, count, learningRate, norm));
      p.valueChanged();
    }
    this.clearGradients();
  }

  clearGradients(): void {
    for (const p of this.parameters.values()) p.clearGradient();
  }
}

/** AdamW's settings for a parameter, `count` steps being done; the gradient's `norm` is that of all parameters. */
export function stepOf(
  config: TrainConfig,
  { value }: Parameter,
  count: number,
  learningRate: number,
  norm: number,
): AdamWStep {
  const { beta1, beta2, epsilon, weightDecay, clipNorm } = config;
  return {
    learningRate,
    beta1,
    beta2,
    epsilon,
    // Vectors (norm weights) are not decayed, as usual.
    weightDecay: value.shape.length === 1 ? 0 : weightDecay,
    gradientScale: Math.min(1, clipNorm / (norm + 1e-6)),
    biasCorrection1: 1 - beta1 ** (count + 1),
    biasCorrection2: 1 - beta2 ** (count + 1),
  };
}
