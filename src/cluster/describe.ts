import { STORAGE_PLANE } from './build.js';
import { CABLE_KINDS, countCables, type Network, NIC, SWITCH, verticesOf } from './graph.js';

/** How many of what a network has. */
export interface Parts {
  endpoints: number;
  nics: number;
  nodes: number;
  planes: number;
  layers: { layer: number; switches: number }[];
  cables: { kind: string; cables: number }[];
}

export function describeParts(network: Network): Parts {
  const switches = verticesOf(network, SWITCH).filter((v) => network.plane[v] !== STORAGE_PLANE);
  const layers = [...new Set(switches.map((v) => network.layer[v]!))].sort((a, b) => a - b);
  const bare = network.kind[network.endpoints[0]!] === NIC;
  return {
    endpoints: network.endpoints.length,
    nics: network.nics.length,
    nodes: bare ? network.nics.length : network.endpoints.length / network.gpusPerNode,
    planes: new Set(switches.map((v) => network.plane[v])).size,
    layers: layers.map((layer) => ({
      layer,
      switches: switches.filter((v) => network.layer[v] === layer).length,
    })),
    cables: CABLE_KINDS.flatMap((kind, k) => {
      const cables = countCables(network, k);
      return cables > 0 ? [{ kind, cables }] : [];
    }),
  };
}
