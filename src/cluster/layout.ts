import type { Prices } from '../spec/prices.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, GPU, headOf, type Network, NIC, SWITCH, tailOf } from './graph.js';

/**
 * Lengths of cables from where racks stand [after SC'14 §VI-A]. Endpoints fill racks in order, racks fill a square along a
 * Z-shaped curve, so that neighbours in order are neighbours on the floor; a switch stands in the rack in the middle of what
 * it joins below. Without nodes, endpoints stand in the rack of their switch.
 * @returns [E] metres; 0 for cables inside a node
 */
export function cableLengths(network: Network, prices: Prices): Float64Array {
  const place = placeAll(network, prices);
  const lengths = new Float64Array(network.cableCount);
  for (let e = 0; e < network.cableCount; e++) {
    if (network.cableKind[e] !== FABRIC_CABLE && network.cableKind[e] !== ENDPOINT_CABLE) continue;
    const [a, b] = [network.from[e]!, network.to[e]!];
    const apart = Math.abs(place.x[a]! - place.x[b]!) + Math.abs(place.y[a]! - place.y[b]!);
    lengths[e] = apart === 0 ? prices.rackCableMetres : apart * prices.rackMetres + prices.slackMetres;
  }
  return lengths;
}

/** [V] rack coordinates. */
interface Places {
  x: Float64Array;
  y: Float64Array;
}

function placeAll(network: Network, prices: Prices): Places {
  const places = { x: new Float64Array(network.vertexCount), y: new Float64Array(network.vertexCount) };
  const bare = network.kind[network.endpoints[0]!] === NIC;
  if (bare) placeSwitches(network, prices, places);
  else {
    const perRack = prices.endpointsPerRack;
    for (const [i, gpu] of network.endpoints.entries()) putInRack(places, gpu, Math.floor(i / perRack));
    centre(network, places, NIC, 0, GPU, 0);
    centre(network, places, SWITCH, 0, NIC, undefined);
  }
  const top = network.layer.reduce(
    (most, layer, v) => (network.kind[v] === SWITCH ? Math.max(most, layer) : most),
    0,
  );
  for (let layer = 1; layer <= top; layer++) centre(network, places, SWITCH, layer, SWITCH, layer - 1);
  return places;
}

/** Leaves in order of their endpoints, as many to a rack as fill it; the endpoints beside them. */
function placeSwitches(network: Network, { endpointsPerRack }: Prices, places: Places): void {
  const order: number[] = [];
  const endpoints = new Map<number, number[]>();
  for (const nic of network.nics) {
    const home = headOf(network, network.outgoing[network.offsets[nic]!]!);
    if (!endpoints.has(home)) {
      endpoints.set(home, []);
      order.push(home);
    }
    endpoints.get(home)!.push(nic);
  }
  // Plane by plane and in the order of building, in which groups are together.
  order.sort((a, b) => a - b);
  let filled = 0;
  for (const home of order) {
    const rack = Math.floor(filled / endpointsPerRack);
    for (const v of [home, ...endpoints.get(home)!]) putInRack(places, v, rack);
    filled += endpoints.get(home)!.length;
  }
}

/** The rack's place on a Z-shaped curve: even bits of its number are x, odd bits y. */
function putInRack(places: Places, vertex: number, rack: number): void {
  let [x, y] = [0, 0];
  for (let bit = 0; rack >> (2 * bit) > 0; bit++) {
    x |= ((rack >> (2 * bit)) & 1) << bit;
    y |= ((rack >> (2 * bit + 1)) & 1) << bit;
  }
  places.x[vertex] = x;
  places.y[vertex] = y;
}

/** Puts vertices of a kind and layer (any where it is undefined) in the middle of their neighbours of another. */
function centre(
  network: Network,
  places: Places,
  kind: number,
  layer: number,
  below: number,
  layerBelow: number | undefined,
): void {
  for (let v = 0; v < network.vertexCount; v++) {
    const own = network.kind[v] === kind && (kind !== SWITCH || network.layer[v] === layer);
    if (!own) continue;
    let [x, y, count] = [0, 0, 0];
    for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
      const channel = network.outgoing[i]!;
      const other = headOf(network, channel) === v ? tailOf(network, channel) : headOf(network, channel);
      if (network.kind[other] !== below) continue;
      if (below === SWITCH && network.layer[other] !== layerBelow) continue;
      x += places.x[other]!;
      y += places.y[other]!;
      count++;
    }
    if (count === 0) continue;
    places.x[v] = Math.round(x / count);
    places.y[v] = Math.round(y / count);
  }
}
