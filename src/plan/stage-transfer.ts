import type { Machine } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { stageRanks, type TrainPlan } from './train-plan.js';

/**
 * Seconds from the end of a pass to its use by the next stage: a micro-batch's hidden states in BF16, or FP32, of one device. Ranks
 * of a stage are next to each other, so that stages share a node only where several fit into one.
 */
export function stageTransferSeconds(shape: ModelShape, m: Machine, plan: TrainPlan): number {
  if (plan.pipeline === 1) return 0;
  const act = plan.format === 'fp32' ? 4 : 2;
  const bytes = (plan.microBatch * plan.length * shape.hiddenSize * act) / (plan.tensor * plan.context);
  const within = stageRanks(plan) * 2 <= m.node.devices;
  const link = within ? m.node.scaleUp : (m.node.scaleOut ?? m.node.scaleUp);
  return link ? bytes / link.effectiveBytesPerSecond.value + link.latencySeconds.value : 0;
}
