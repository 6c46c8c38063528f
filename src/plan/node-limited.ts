/** Traffic between nodes under node-limited routing [ISCA §4.3; TR §2.1.2]. */

export interface Routing {
  routed: number;
  perToken: number;
  /** Groups of experts, one a node. */
  groups: number;
  /** Groups that a token may use. */
  groupsPerToken: number;
}

/**
 * Nodes that a token goes to on average, if the router chose evenly: first its groups, then experts among all of theirs. A group
 * is missed with the probability that none of the chosen experts is its own.
 */
export function meanNodes({ routed, perToken, groups, groupsPerToken }: Routing): number {
  const perGroup = routed / groups;
  const reachable = perGroup * groupsPerToken;
  let missed = 1;
  for (let k = 0; k < perToken; k++) missed *= Math.max(0, reachable - perGroup - k) / (reachable - k);
  return groupsPerToken * (1 - missed);
}

export interface NodeTraffic {
  /** Transfers over the network of one token, in units of a token's bytes, where every expert is sent to by itself. */
  perExpert: number;
  /** Most of them where a token is sent to each node once and forwarded there over NVLink: M. */
  mostPerNode: number;
  /** Mean of them for even routing. */
  meanPerNode: number;
}

/** How deduplication by nodes reduces traffic: from 8t to M·t with M ≤ 4 in DeepSeek-V3 [ISCA §4.3]. */
export const nodeTraffic = (routing: Routing): NodeTraffic => ({
  perExpert: routing.perToken,
  mostPerNode: Math.min(routing.perToken, routing.groupsPerToken),
  meanPerNode: meanNodes(routing),
});
