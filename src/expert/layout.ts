import { UserError } from '../errors.js';
import type { Placement } from './transport/transport.js';

/**
 * Where the experts of a model are. The ranks of one expert-parallel group are neighbours; each holds as many experts, in
 * their order, so that a group of experts of the router lies on as few nodes as possible and node-limited routing limits
 * the nodes that a token goes to [ISCA §4.3].
 */
export interface ExpertLayout {
  /** First rank of this rank's group, and ranks of a group. */
  readonly first: number;
  readonly size: number;
  /** This rank's place in its group. */
  readonly index: number;
  /** Ranks of the group that share memory, and nodes of the group. */
  readonly perNode: number;
  readonly nodes: number;
  /** This rank's node in the group, and its place there. */
  readonly node: number;
  readonly local: number;
  /** Experts in all, and of each rank. */
  readonly experts: number;
  readonly perRank: number;
}

/**
 * @param size ranks of an expert-parallel group
 * @param redundant copies of experts beyond the first: places for them count as experts
 * @throws UserError where ranks, nodes and experts do not go together
 */
export function layOut(
  placement: Placement,
  rank: number,
  routed: number,
  size: number,
  redundant = 0,
): ExpertLayout {
  checkRanks(placement, routed, size, redundant);
  const experts = routed + redundant;
  const perNode = Math.min(size, placement.perNode);
  const first = rank - (rank % size);
  const index = rank - first;
  return {
    first,
    size,
    index,
    perNode,
    nodes: size / perNode,
    node: Math.floor(index / perNode),
    local: index % perNode,
    experts,
    perRank: experts / size,
  };
}

function checkRanks(
  { size: ranks, perNode }: Placement,
  experts: number,
  size: number,
  redundant: number,
): void {
  if (ranks % size !== 0) {
    throw new UserError(
      `--expert-parallel ${size} does not divide the ${ranks} ranks of the run; start a multiple of it (mpirun -n ${size * Math.ceil(ranks / size)})`,
    );
  }
  if (redundant > 0 && (experts + redundant) % size !== 0) {
    throw new UserError(
      `${experts} experts and --redundant-experts ${redundant} are no whole number for each of ${size} ranks; ` +
        `take ${redundant + size - ((experts + redundant) % size)}`,
    );
  }
  if ((experts + redundant) % size !== 0) {
    throw new UserError(
      `--expert-parallel ${size} does not divide the model's ${experts} experts (n_routed_experts); take a divisor of ${experts}`,
    );
  }
  const whole = size > perNode ? size % perNode === 0 : perNode % size === 0;
  if (!whole) {
    throw new UserError(
      `--expert-parallel ${size} and nodes of ${perNode} ranks do not go together: one must be a multiple of the other`,
    );
  }
}

/** Rank of a group's member. */
export const rankOf = ({ first }: ExpertLayout, index: number): number => first + index;
