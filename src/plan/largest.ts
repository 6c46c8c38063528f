import type { Cluster } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import { cutStages } from './stages.js';
import { trainMemory } from './train-memory.js';
import type { TrainPlan } from './train-plan.js';

/** What would still fit in training, one thing changed at a time; 0 where not even one does. */
export interface LargestTraining {
  /** Sequences of a micro-batch. */
  microBatch: number;
  /** Tokens of a sequence, in steps of `LENGTH_STEP`. */
  length: number;
}

const LENGTH_STEP = 1024;
/** No search beyond this many steps: what fits there fits anything that is trained. */
const MOST = 2 ** 14;

/** Largest micro-batch and longest sequence whose memory fits; the number of micro-batches stays. */
export function largestTraining(shape: ModelShape, cluster: Cluster, plan: TrainPlan): LargestTraining {
  const fits = (change: Partial<TrainPlan>): boolean => {
    const changed = { ...plan, ...change };
    const grown = changed.microBatch / plan.microBatch;
    const whole = { ...changed, globalBatch: plan.globalBatch * grown };
    return trainMemory(shape, cluster, whole, cutStages(shape, cluster.machine, whole)).fits;
  };
  return {
    microBatch: largest((microBatch) => fits({ microBatch })),
    length: largest((steps) => fits({ length: steps * LENGTH_STEP })) * LENGTH_STEP,
  };
}

/** Largest n in 1..MOST for which `holds`, which holds up to some n; 0 where it never does. */
function largest(holds: (n: number) => boolean): number {
  if (!holds(1)) return 0;
  let high = 2;
  while (high < MOST && holds(high)) high *= 2;
  let low = high / 2;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (holds(middle)) low = middle;
    else high = middle;
  }
  return low;
}
