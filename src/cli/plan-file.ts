import { z } from 'zod';
import { UserError } from '../errors.js';
import { readJsonFile, writeFileAtomicallySync, writeFully } from '../files.js';
import type { ChosenPlan } from '../plan/hand-over/launch.js';
import { SCHEDULE_NAMES } from '../plan/pipeline/schedule.js';
import { describeIssues } from '../spec/model.js';
import { FORMATS } from './plan-input.js';

/** A chosen plan as a file: what `fathom plan search --save` writes and `fathom launch --plan` takes. */

const count = z.int().positive();
const planFile = z.strictObject({
  model: z.string().min(1),
  nodes: count,
  devicesPerNode: count,
  plan: z.strictObject({
    pipeline: count,
    expert: count,
    data: count,
    tensor: count,
    context: count,
    schedule: z.enum(SCHEDULE_NAMES),
    microBatch: count,
    globalBatch: count,
    length: count,
    format: z.enum(FORMATS),
    recompute: z.enum(['none', 'selective', 'full']),
    zero: z.union([z.literal(0), z.literal(1), z.literal(2), z.literal(3)]),
    nodeLimit: count.nullable(),
  }),
});

/** @throws UserError naming file and field */
export function readPlanFile(file: string): ChosenPlan {
  const parsed = planFile.safeParse(readJsonFile(file));
  if (!parsed.success) throw new UserError(`${file}: ${describeIssues(parsed.error)}`);
  const { plan, nodes, devicesPerNode } = parsed.data;
  const needed = plan.pipeline * plan.data * plan.tensor * plan.context;
  if (needed > nodes * devicesPerNode)
    throw new UserError(
      `${file}: the plan needs ${needed} devices and ${nodes} nodes have ${nodes * devicesPerNode}`,
    );
  return parsed.data;
}

export function writePlanFile(file: string, chosen: ChosenPlan): void {
  const content = new TextEncoder().encode(`${JSON.stringify(chosen, null, 2)}\n`);
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, content, 0));
}
