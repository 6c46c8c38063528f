/** What a network costs and draws, by the method of the Slim Fly papers: switches by radix, cables by length. */
import type { Prices } from '../spec/prices.js';
import { countCables, ENDPOINT_CABLE, FABRIC_CABLE, type Network, SWITCH, verticesOf } from './graph.js';
import { cableLengths } from './layout.js';

export interface CableCost {
  count: number;
  /** How many of them are fibre. */
  optical: number;
  meanMetres: number;
  dollars: number;
  watts: number;
}

export interface NetworkCost {
  endpoints: number;
  switches: number;
  /** Between switches. */
  links: number;
  switchDollars: number;
  switchWatts: number;
  fabric: CableCost;
  endpointCables: CableCost;
  /** NICs and nodes are not counted, as in the method. */
  dollars: number;
  dollarsPerEndpoint: number;
  watts: number;
  wattsPerEndpoint: number;
}

/** Prices the parts of a network. @param radix ports that its switches are bought with */
export function costOf(network: Network, radix: number, prices: Prices): NetworkCost {
  const lengths = cableLengths(network, prices);
  const switches = verticesOf(network, SWITCH).length;
  const switchDollars = switches * (prices.switchBase + prices.switchPerPort * radix);
  const switchWatts = switches * (prices.switchWatts + prices.wattsPerPort * radix);
  const fabric = cablesOf(network, FABRIC_CABLE, lengths, prices);
  const endpointCables = cablesOf(network, ENDPOINT_CABLE, lengths, prices);
  const endpoints = network.nics.length;
  const links = countCables(network, FABRIC_CABLE);
  return totalCost({ endpoints, switches, links, switchDollars, switchWatts, fabric, endpointCables });
}

type CostParts = Omit<NetworkCost, 'dollars' | 'dollarsPerEndpoint' | 'watts' | 'wattsPerEndpoint'>;

/** The parts with their sums. */
export function totalCost(parts: CostParts): NetworkCost {
  const { endpoints, switchDollars, switchWatts, fabric, endpointCables } = parts;
  const dollars = switchDollars + fabric.dollars + endpointCables.dollars;
  const watts = switchWatts + fabric.watts + endpointCables.watts;
  return {
    ...parts,
    dollars,
    dollarsPerEndpoint: dollars / endpoints,
    watts,
    wattsPerEndpoint: watts / endpoints,
  };
}

function cablesOf(network: Network, kind: number, lengths: Float64Array, prices: Prices): CableCost {
  const sum = { count: 0, optical: 0, meanMetres: 0, dollars: 0, watts: 0 };
  for (let e = 0; e < network.cableCount; e++) {
    if (network.cableKind[e] !== kind) continue;
    const [metres, gbps] = [lengths[e]!, (network.bytesPerSecond[e]! * 8) / 1e9];
    const optical = metres > prices.electricalMetres;
    const price = optical ? prices.optical : prices.electrical;
    sum.count++;
    sum.optical += optical ? 1 : 0;
    sum.meanMetres += metres;
    sum.dollars += gbps * (price.perGbps + price.perGbpsMetre * metres);
    sum.watts += price.watts;
  }
  sum.meanMetres /= Math.max(1, sum.count);
  return sum;
}
