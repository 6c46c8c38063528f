import { UserError } from '../errors.js';
import { type Cluster, devicesOf } from '../spec/machine.js';
import type { ModelShape } from '../spec/shape.js';
import type { ComputeFormat } from './kernels.js';
import { nearestDivisor } from './train-plan.js';

/** How a model is served: attention by data, experts spread over all devices of a group. */
export interface ServePlan {
  /** Devices of one group, over which the experts are spread. */
  devices: number;
  /** Devices that share one sequence's attention. */
  tensor: number;
  /** Sequences that a device decodes at a time. */
  batch: number;
  /** Tokens before the one that is decoded. */
  context: number;
  /** Tokens of a prompt, and of all prompts that a device takes in at a time. */
  prompt: number;
  prefillTokens: number;
  /** Tokens of an answer. */
  output: number;
  format: ComputeFormat;
  /** Bytes of a value in the cache. */
  cacheBytesPerValue: number;
  /** Two micro-batches in turn, one computing while the other communicates [ISCA §2.3.1]. */
  overlap: boolean;
  /** MTP modules that draft, and the acceptance of a draft; 0 decodes plainly. */
  draftDepth: number;
  acceptance: number;
}

export const DEFAULT_SERVE_PLAN: ServePlan = {
  devices: 128,
  tensor: 1,
  batch: 128,
  context: 4096,
  prompt: 4096,
  prefillTokens: 16384,
  output: 1024,
  format: 'fp8',
  cacheBytesPerValue: 2,
  overlap: true,
  draftDepth: 0,
  acceptance: 0.85,
};

/** What a plan breaks, with the nearest value that would do; undefined where it can be. */
export function servePlanProblem(p: ServePlan, shape: ModelShape, cluster: Cluster): string | undefined {
  const given = devicesOf(cluster);
  const { machine: m } = cluster;
  if (p.devices > given)
    return `devices (${p.devices}) exceeds the ${given} of the cluster; take at most ${given}`;
  if (p.tensor > m.node.devices) {
    return `tensor (${p.tensor}) exceeds the ${m.node.devices} devices of a node; take at most ${m.node.devices}`;
  }
  const spread = shape.experts?.routed ?? 0;
  if (spread > 0 && spread % p.devices !== 0 && p.devices % spread !== 0) {
    return `devices (${p.devices}) must divide the ${spread} experts or be a multiple of them; the nearest is ${nearestDivisor(spread, p.devices)}`;
  }
  if (p.devices % p.tensor !== 0) return `tensor (${p.tensor}) must divide devices (${p.devices})`;
  if (shape.attention.heads % p.tensor !== 0) {
    return `tensor (${p.tensor}) must divide the ${shape.attention.heads} heads`;
  }
  if (!shape.experts && p.devices !== p.tensor) {
    return `a model without experts is served by tensor (${p.tensor}) alone; set devices to ${p.tensor} and count replicas yourself`;
  }
  if (!m.device.peakFlopsPerSecond[p.format]) {
    return `${m.name} does not compute in ${p.format}; it has ${Object.keys(m.device.peakFlopsPerSecond).join(', ')}`;
  }
  if (p.draftDepth > shape.mtpDepth) {
    return `draft depth (${p.draftDepth}) exceeds the ${shape.mtpDepth} MTP modules of the model`;
  }
  return undefined;
}

/** @throws UserError with the constraint and the nearest valid value */
export function checkServePlan(p: ServePlan, shape: ModelShape, cluster: Cluster): void {
  const problem = servePlanProblem(p, shape, cluster);
  if (problem) throw new UserError(problem);
}
