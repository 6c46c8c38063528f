import type { Link, Machine } from '../spec/machine.js';
import { elementwiseSeconds } from './kernels.js';
import { parameterCopies } from './pipeline/formulas.js';
import type { Stage } from './stages.js';
import { microBatches, stageRanks, type TrainPlan } from './train-plan.js';

/** The end of a step: gradients reduced, shards of the parameters updated, parameters gathered [arXiv 1910.02054]. */
export interface StepEnd {
  reduceSeconds: number;
  updateSeconds: number;
  gatherSeconds: number;
}

/** Bytes of the update per parameter of a shard: gradient and master read, master written, two BF16 moments both, weight. */
const UPDATE_BYTES = 4 + 4 + 4 + 4 * 2 + 2;
/** Gradients are reduced in FP32. */
export const GRADIENT_BYTES = 4;
const WEIGHT_BYTES = 2;

/** Parameters of one device and how many others hold the same ones. */
export interface Replicated {
  parameters: number;
  replicas: number;
  /** How many of the replicas share a node. */
  perNode: number;
}

/** The device with the most parameters, which under DualPipe holds a stage from either end. */
export function replicatedParameters(m: Machine, plan: TrainPlan, stages: readonly Stage[]): Replicated[] {
  const copies = plan.pipeline > 1 ? parameterCopies(plan.schedule) : 1;
  const largest = (of: (stage: Stage) => number) =>
    Math.max(...stages.map((stage, i) => of(stage) + (copies > 1 ? of(stages[stages.length - 1 - i]!) : 0)));
  const ranks = stageRanks(plan);
  const replicas = plan.data * plan.context;
  return [
    {
      parameters: largest((stage) => stage.denseParameters) / plan.tensor,
      replicas: replicas * copies,
      perNode: Math.max(1, Math.min(replicas, Math.floor(m.node.devices / plan.tensor))),
    },
    {
      parameters: largest((stage) => stage.expertParameters) / plan.expert,
      replicas: (ranks / plan.expert) * copies,
      perNode: Math.max(1, Math.min(ranks / plan.expert, Math.floor(m.node.devices / plan.expert))),
    },
  ];
}

/**
 * Nothing of it is hidden behind computation here. Sharded gradients are reduced, and sharded weights gathered for either pass,
 * in every micro-batch.
 */
export function stepEnd(m: Machine, plan: TrainPlan, stages: readonly Stage[]): StepEnd {
  const groups = replicatedParameters(m, plan, stages);
  const count = microBatches(plan);
  const over = (bytes: number) =>
    groups.reduce((sum, group) => sum + collectiveSeconds(m, group.parameters * bytes, group), 0);
  const updated = groups.reduce(
    (sum, { parameters, replicas }) => sum + parameters / (plan.zero > 0 ? replicas : 1),
    0,
  );
  return {
    reduceSeconds: over(plan.zero > 0 ? GRADIENT_BYTES : 2 * GRADIENT_BYTES) * (plan.zero >= 2 ? count : 1),
    updateSeconds: elementwiseSeconds(m, updated * UPDATE_BYTES),
    gatherSeconds: plan.zero > 0 ? over(WEIGHT_BYTES) * (plan.zero === 3 ? 2 * count : 1) : 0,
  };
}

/**
 * Reduce-scatter or all-gather: within nodes, and each device with its peers of other nodes for its part. Pieces of a buffer go
 * through both kinds of links one after the other, so that the slower kind sets the time [arXiv 2507.04786 §4, NCCL's rings].
 */
export function collectiveSeconds(m: Machine, bytes: number, { replicas, perNode }: Replicated): number {
  if (replicas <= 1) return 0;
  const inside = Math.min(perNode, replicas);
  const outside = Math.ceil(replicas / inside);
  const within = transferSeconds(m.node.scaleUp, (bytes * (inside - 1)) / inside, inside - 1);
  const across = transferSeconds(
    m.node.scaleOut,
    ((bytes / inside) * (outside - 1)) / outside,
    outside > 1 ? Math.ceil(Math.log2(outside)) : 0,
  );
  return Math.max(within, across);
}

const transferSeconds = (link: Link | null, bytes: number, messages: number): number =>
  link ? bytes / link.effectiveBytesPerSecond.value + messages * link.latencySeconds.value : 0;
