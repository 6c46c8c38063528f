import type { AdamWStep } from '../../tensor/backend.js';
import type { Tensor } from '../../tensor/tensor.js';
import { commit, read } from './values.js';

/** out[0] = Σ x², added in the order of the elements. */
export function sumOfSquares(x: Tensor, out: Tensor): void {
  const values = read(x);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  read(out)[0] = sum;
}

/**
 * AdamW [arXiv 1711.05101, alg. 2]: g ← gradientScale·g, m ← β1·m + (1−β1)·g, v ← β2·v + (1−β2)·g²,
 * θ ← θ − lr·(m̂/(√v̂ + ε) + λ·θ) with m̂ = m/(1−β1^t), v̂ = v/(1−β2^t). The update uses m and v before they are
 * rounded for storage.
 */
export function adamw(parameter: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: AdamWStep): void {
  const { learningRate, beta1, beta2, epsilon, weightDecay, gradientScale } = step;
  const { biasCorrection1, biasCorrection2 } = step;
  const [theta, slope, first, second] = [read(parameter), read(gradient), read(m), read(v)];
  for (let i = 0; i < theta.length; i++) {
    const g = slope[i]! * gradientScale;
    const mean = beta1 * first[i]! + (1 - beta1) * g;
    const square = beta2 * second[i]! + (1 - beta2) * g * g;
    const update = mean / biasCorrection1 / (Math.sqrt(square / biasCorrection2) + epsilon);
    theta[i] = theta[i]! - learningRate * (update + weightDecay * theta[i]!);
    first[i] = mean;
    second[i] = square;
  }
  commit(m, first);
  commit(v, second);
}
