import { STORAGE_PLANE } from './build.js';
import { CABLE_KINDS, countCables, headOf, type Network, NIC, SWITCH, verticesOf } from './graph.js';

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

/** What a drawing shows: rows of boxes, from the endpoints up, and bundles of cables between boxes. */
export interface Drawing {
  rows: { label: string; boxes: { label: string; colour: number }[] }[];
  bundles: {
    from: [row: number, box: number];
    to: [row: number, box: number];
    cables: number;
    colour: number;
  }[];
}

/** Switches by layer, NICs lumped together by their leaf, parallel cables as one. */
export function drawingOf(network: Network): Drawing {
  const switches = verticesOf(network, SWITCH).filter((v) => network.plane[v] !== STORAGE_PLANE);
  const top = switches.reduce((most, v) => Math.max(most, network.layer[v]!), 0);
  const at = new Map<number, [row: number, box: number]>();
  const rows: Drawing['rows'] = Array.from({ length: top + 1 }, (_, layer) => {
    const own = switches.filter((v) => network.layer[v] === layer);
    for (const [box, v] of own.entries()) at.set(v, [layer, box]);
    return {
      label: `${own.length} switches, layer ${layer}`,
      boxes: own.map((v) => ({ label: nicsLabel(network, v), colour: network.plane[v]! })),
    };
  });
  const bundles = new Map<string, Drawing['bundles'][number]>();
  for (let e = 0; e < network.cableCount; e++) {
    const [from, to] = [at.get(network.from[e]!), at.get(network.to[e]!)];
    if (!from || !to) continue;
    const key = `${network.from[e]} ${network.to[e]}`;
    const known = bundles.get(key);
    if (known) known.cables++;
    else bundles.set(key, { from, to, cables: 1, colour: network.plane[network.from[e]!]! });
  }
  return { rows, bundles: [...bundles.values()] };
}

function nicsLabel(network: Network, vertex: number): string {
  let nics = 0;
  for (let i = network.offsets[vertex]!; i < network.offsets[vertex + 1]!; i++) {
    if (network.kind[headOf(network, network.outgoing[i]!)] === NIC) nics++;
  }
  return nics > 0 ? `${nics} NICs` : '';
}
