import type { Network } from './graph.js';
import type { Route, Router } from './routing.js';
import type { Transfer } from './transfers.js';

/** [C] bytes per second of each channel: the links of flows. */
export const capacities = (network: Network): Float64Array =>
  Float64Array.from({ length: 2 * network.cableCount }, (_, c) => network.bytesPerSecond[c >> 1]!);

/** The way of a transfer. @throws UserError where there is none */
export function routeOf(router: Router, { from, to, bytes, key, tree }: Transfer): Route {
  return tree
    ? router.tree(tree.kind === 'reduce' ? to : from, tree, key)
    : router.route(from, to, bytes, key);
}
