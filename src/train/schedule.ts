import type { TrainConfig } from './config.js';

/** Learning rate of step `step` (counting from 0): linear warm-up, then cosine decay [TR §4.2]. */
export function learningRate(config: TrainConfig, step: number): number {
  const { learningRate: peak, warmupSteps, steps, finalLearningRate } = config;
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  const progress = (step - warmupSteps) / Math.max(1, steps - 1 - warmupSteps);
  const floor = peak * finalLearningRate;
  return floor + (peak - floor) * 0.5 * (1 + Math.cos(Math.PI * Math.min(progress, 1)));
}

/** λ of the MTP loss at this step. */
export const mtpWeight = ({ mtp, steps }: TrainConfig, step: number): number =>
  step < mtp.laterAfter * steps ? mtp.weight : mtp.laterWeight;

/** γ of the bias update at this step. */
export const biasUpdateSpeed = ({ balance, steps }: TrainConfig, step: number): number =>
  step < balance.biasFreezeAfter * steps ? balance.biasUpdateSpeed : 0;
