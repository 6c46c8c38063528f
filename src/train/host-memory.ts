import { UserError } from '../errors.js';
import type { Team } from '../expert/team.js';
import { countParameters } from '../model/parameters.js';
import { bytes } from '../report/units.js';
import type { ModelConfig } from '../spec/model.js';

/** FP32 master value and FP32 gradient of a parameter; moments, packed copies and activations come on top. */
const LEAST_PER_PARAMETER = 8;

/** Bytes that a rank needs in any case: values and gradients of what it holds, its share of routed experts among them. */
export function leastBytes(model: ModelConfig, expertParallel: number): number {
  const { total, byPart, mtp } = countParameters(model);
  const routed = byPart.routedExperts.total;
  // Of the MTP modules most is routed experts; as if all were, which keeps this a lower bound.
  return LEAST_PER_PARAMETER * (total - routed + (routed + mtp.total) / expertParallel);
}

/**
 * Refuses, before anything large is allocated, what hosts have no memory for; collective.
 * @param free bytes that this rank's host has left, within the limits of its container
 * @throws UserError on rank 0 naming ranks and host; `ReportedError` on others
 */
export async function checkHostMemory(
  team: Team,
  model: ModelConfig,
  free = process.availableMemory(),
): Promise<void> {
  const frees = new Float64Array(team.size);
  team.world.allGather(Float64Array.of(free), frees, Array<number>(team.size).fill(1)).wait();
  const { hosts } = team.transport.placement;
  const need = leastBytes(model, team.layout.size);
  await team.together(() => {
    if (!team.leads) return;
    for (const host of new Set(hosts)) {
      const ranks = hosts.flatMap((name, rank) => (name === host ? [rank] : []));
      const least = Math.min(...ranks.map((rank) => frees[rank]!));
      if (ranks.length * need <= least) continue;
      throw new UserError(
        `ranks ${ranks.join(', ')} on ${host} need at least ${bytes(ranks.length * need)} for weights and gradients, ` +
          `and ${bytes(least)} are free there; take fewer ranks a host, more hosts, or a smaller model`,
      );
    }
  });
}
