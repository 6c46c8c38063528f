import { STORAGE_PLANE } from './build.js';
import {
  ENDPOINT_CABLE,
  FABRIC_CABLE,
  headOf,
  type Network,
  NIC,
  SWITCH,
  tailOf,
  verticesOf,
} from './graph.js';

/** A box: a switch, a group of them, or a node, whose parts are its NICs; colours are numbers of planes. */
export interface DrawnBox {
  label: string;
  colour: number;
  parts: number[];
}

/** Where a bundle of cables ends. */
export interface DrawnEnd {
  row: number;
  box: number;
  /** Of the box; the middle of it without. */
  part?: number;
}

/** What a drawing shows: rows of boxes, from the endpoints up, and bundles of cables between boxes. */
export interface Drawing {
  rows: { label: string; boxes: DrawnBox[] }[];
  bundles: { from: DrawnEnd; to: DrawnEnd; cables: number; colour: number }[];
  /** What is left out, for people; empty where nothing is. */
  note: string;
}

/** More boxes in a row are drawn as groups, and of more bundles every so many-th only. */
const MOST_BOXES = 800;
const MOST_BUNDLES = 20_000;

/** Nodes with their NICs, switches by layer, parallel cables as one. */
export function drawingOf(network: Network): Drawing {
  const places = new Map<number, DrawnEnd>();
  const rows = [nodeRow(network, places), ...switchRows(network, places)];
  const bundles = new Map<string, Drawing['bundles'][number]>();
  for (let e = 0; e < network.cableCount; e++) {
    const kind = network.cableKind[e];
    const [from, to] = [places.get(network.from[e]!), places.get(network.to[e]!)];
    if ((kind !== ENDPOINT_CABLE && kind !== FABRIC_CABLE) || !from || !to) continue;
    if (from.row === to.row && from.box === to.box) continue;
    const key = [from.row, from.box, from.part, to.row, to.box].join();
    const known = bundles.get(key);
    if (known) known.cables++;
    else bundles.set(key, { from, to, cables: 1, colour: network.plane[network.to[e]!]! });
  }
  return { rows, ...thinned([...bundles.values()]) };
}

function thinned(bundles: Drawing['bundles']): Pick<Drawing, 'bundles' | 'note'> {
  if (bundles.length <= MOST_BUNDLES) return { bundles, note: '' };
  const step = Math.ceil(bundles.length / MOST_BUNDLES);
  return {
    bundles: bundles.filter((_, i) => i % step === 0),
    note: `one of ${step} bundles of cables is drawn`,
  };
}

/** A box for each node; without nodes, for the NICs of each switch. */
function nodeRow(network: Network, places: Map<number, DrawnEnd>): Drawing['rows'][number] {
  const bare = network.kind[network.endpoints[0]!] === NIC;
  const leaves = new Set(bare ? [...network.nics].map((nic) => switchOf(network, nic)) : []);
  const members = new Map<string, number[]>();
  for (const nic of network.nics) {
    const leaf = switchOf(network, nic);
    const one = leaves.size > MOST_BOXES ? `group ${network.group[leaf]} ${network.plane[leaf]}` : `${leaf}`;
    const key = bare ? one : `${network.group[nic]}`;
    const known = members.get(key);
    if (known) known.push(nic);
    else members.set(key, [nic]);
  }
  const boxes = [...members.values()].map((nics, box): DrawnBox => {
    for (const [part, nic] of nics.entries()) places.set(nic, bare ? { row: 0, box } : { row: 0, box, part });
    if (bare) return { label: `${nics.length}`, colour: network.plane[nics[0]!]!, parts: [] };
    return { label: `node ${box}`, colour: 0, parts: nics.map((nic) => network.plane[nic]!) };
  });
  const count = network.endpoints.length;
  const label = bare ? `${count} endpoints` : `${boxes.length} nodes, ${count} GPUs`;
  return { label, boxes };
}

const switchOf = (network: Network, nic: number): number =>
  headOf(network, network.outgoing[network.offsets[nic]!]!);

function switchRows(network: Network, places: Map<number, DrawnEnd>): Drawing['rows'] {
  const switches = verticesOf(network, SWITCH).filter((v) => network.plane[v] !== STORAGE_PLANE);
  const layers = [...new Set(switches.map((v) => network.layer[v]!))].sort((a, b) => a - b);
  return layers.map((layer, i) => {
    const own = switches.filter((v) => network.layer[v] === layer);
    const boxes = boxesOf(network, own);
    for (const [box, members] of boxes.entries()) for (const v of members) places.set(v, { row: i + 1, box });
    const lumped = boxes.length < own.length ? ` in ${boxes.length} groups` : '';
    return {
      label: `${own.length} switches${lumped}, layer ${layer}`,
      boxes: boxes.map((members) => ({
        label: members.length > 1 ? `${members.length}` : '',
        colour: network.plane[members[0]!]!,
        parts: [],
      })),
    };
  });
}

/** Switches one by one, or by their groups where they are many. */
function boxesOf(network: Network, switches: readonly number[]): number[][] {
  if (switches.length <= MOST_BOXES) return switches.map((v) => [v]);
  const groups = new Map<string, number[]>();
  for (const v of switches) {
    const key = `${network.plane[v]} ${network.group[v]}`;
    groups.set(key, [...(groups.get(key) ?? []), v]);
  }
  return [...groups.values()];
}

/** A table of shares, for a heat map: how busy cables were. */
export interface HeatTable {
  title: string;
  rowLabel: string;
  columnLabel: string;
  /** [rows][columns] 0 for idle, 1 for full; null where there is no cable. */
  cells: (number | null)[][];
}

/**
 * How busy NICs were out and in, by node, and cables between switches, by the switches that they join; the busiest of parallel ones.
 * @param use [C] share of each channel's capacity over the whole time
 */
export function heatOf(network: Network, use: Float64Array): HeatTable[] {
  const tables = [nicHeat(network, use, 0), nicHeat(network, use, 1)];
  const switches = verticesOf(network, SWITCH).filter((v) => network.plane[v] !== STORAGE_PLANE);
  const layers = [...new Set(switches.map((v) => network.layer[v]!))].sort((a, b) => a - b);
  for (const from of layers) {
    for (const to of layers) {
      const table = fabricHeat(network, use, switches, from, to);
      if (table.cells.some((row) => row.some((cell) => cell !== null))) tables.push(table);
    }
  }
  return tables;
}

/** @param way 0 from the NICs, 1 to them */
function nicHeat(network: Network, use: Float64Array, way: 0 | 1): HeatTable {
  const perNode = Math.max(1, (network.nics.length * network.gpusPerNode) / network.endpoints.length);
  // As many nodes a row as make the table about square.
  const nodes = Math.max(1, Math.round(Math.sqrt(network.nics.length) / perNode));
  const columns = nodes * perNode;
  const cells: (number | null)[][] = [];
  for (const [i, nic] of network.nics.entries()) {
    let [sum, ports] = [0, 0];
    for (let c = network.offsets[nic]!; c < network.offsets[nic + 1]!; c++) {
      const channel = network.outgoing[c]!;
      if (network.cableKind[channel >> 1] !== ENDPOINT_CABLE) continue;
      sum += use[channel ^ way]!;
      ports++;
    }
    if (i % columns === 0) cells.push([]);
    cells.at(-1)!.push(sum / ports);
  }
  return {
    title: way === 0 ? 'NICs, out' : 'NICs, in',
    rowLabel: `${nodes} nodes a row`,
    columnLabel: `NIC of ${perNode}`,
    cells,
  };
}

function fabricHeat(
  network: Network,
  use: Float64Array,
  switches: readonly number[],
  from: number,
  to: number,
): HeatTable {
  const rows = boxesOf(
    network,
    switches.filter((v) => network.layer[v] === from),
  );
  const columns = boxesOf(
    network,
    switches.filter((v) => network.layer[v] === to),
  );
  const row = new Map(rows.flatMap((members, r) => members.map((v) => [v, r] as const)));
  const column = new Map(columns.flatMap((members, c) => members.map((v) => [v, c] as const)));
  const cells = rows.map(() => columns.map((): number | null => null));
  for (let channel = 0; channel < use.length; channel++) {
    if (network.cableKind[channel >> 1] !== FABRIC_CABLE) continue;
    const [r, c] = [row.get(tailOf(network, channel)), column.get(headOf(network, channel))];
    if (r === undefined || c === undefined) continue;
    cells[r]![c] = Math.max(cells[r]![c] ?? 0, use[channel]!);
  }
  return {
    title: `layer ${from} to layer ${to}`,
    rowLabel: `switch of layer ${from}`,
    columnLabel: `switch of layer ${to}`,
    cells,
  };
}
