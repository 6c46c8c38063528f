import { buildNetwork } from '../cluster/build.js';
import { costOf, type NetworkCost, totalCost } from '../cluster/cost.js';
import { nearestOrders, slimFlyDegree, slimFlyEndpoints } from '../cluster/slim-fly.js';
import { type NetworkInput, parseNetwork } from '../spec/network.js';
import type { Prices } from '../spec/prices.js';
import { type Figure, figure, type Reproduction } from './row.js';

/** What the table prints of a topology; cost in dollars. */
interface Printed {
  name: string;
  topology: NetworkInput['topology'];
  endpoints: number;
  switches: number;
  links: number;
  dollars: number;
  dollarsPerEndpoint: number;
}

/** [ISCA table 3]; parameters are those whose counts are the printed ones. */
const PRINTED: readonly Printed[] = [
  {
    name: 'FT2',
    topology: { kind: 'fat-tree', endpoints: 2048 },
    endpoints: 2048,
    switches: 96,
    links: 2048,
    dollars: 9e6,
    dollarsPerEndpoint: 4390,
  },
  {
    name: 'MPFT',
    topology: { kind: 'multi-plane-fat-tree', endpoints: 16384, planes: 8 },
    endpoints: 16384,
    switches: 768,
    links: 16384,
    dollars: 72e6,
    dollarsPerEndpoint: 4390,
  },
  {
    name: 'FT3',
    topology: { kind: 'fat-tree', layers: 3, endpoints: 65536 },
    endpoints: 65536,
    switches: 5120,
    links: 131072,
    dollars: 491e6,
    dollarsPerEndpoint: 7500,
  },
  {
    name: 'SF',
    topology: { kind: 'slim-fly', q: 28 },
    endpoints: 32928,
    switches: 1568,
    links: 32928,
    dollars: 146e6,
    dollarsPerEndpoint: 4400,
  },
  {
    name: 'DF',
    topology: { kind: 'dragonfly', p: 16, a: 32, h: 16, groups: 511 },
    endpoints: 261632,
    switches: 16352,
    links: 384272,
    dollars: 1522e6,
    dollarsPerEndpoint: 5800,
  },
];

/** Table 3: endpoints, switches, links and cost of five topologies of 64-port switches. */
export function table3(prices: Prices): Reproduction {
  const figures = PRINTED.flatMap((printed) => compare(printed, price(printed, prices)));
  const notes = [
    `prices: ${prices.source}`,
    `SF is counted by formula for q = 28, of which no Slim Fly exists (28 is no prime power; the nearest are ${nearestOrders(28).join(' and ')}); its cables are priced as those of q = 27`,
    'DF has 511 groups, not the canonical 513; two global ports of each group join its neighbours in number twice',
  ];
  return { source: 'ISCA table 3', title: 'Topologies of 64-port switches', figures, notes };
}

function compare(printed: Printed, ours: NetworkCost): Figure[] {
  const { name } = printed;
  return [
    figure(`${name} endpoints`, '', printed.endpoints, ours.endpoints),
    figure(`${name} switches`, '', printed.switches, ours.switches),
    figure(`${name} links`, '', printed.links, ours.links),
    figure(`${name} cost`, '$', printed.dollars, ours.dollars),
    figure(`${name} cost/endpoint`, '$', printed.dollarsPerEndpoint, ours.dollarsPerEndpoint),
  ];
}

function price({ name, topology }: Printed, prices: Prices): NetworkCost {
  if (topology.kind === 'slim-fly') return slimFlyByFormula(topology.q, prices);
  return costOf(buildNetwork(parseNetwork({ topology }, `Table 3, ${name}`)), 64, prices);
}

/** Counts of an order of which there is no graph, with the mean prices of the nearest graph below. */
function slimFlyByFormula(q: number, prices: Prices): NetworkCost {
  const below = nearestOrders(q)[0]!;
  const built = costOf(
    buildNetwork(parseNetwork({ topology: { kind: 'slim-fly', q: below } }, 'Table 3, SF')),
    64,
    prices,
  );
  const switches = 2 * q * q;
  const links = (switches * slimFlyDegree(q)) / 2;
  const endpoints = switches * slimFlyEndpoints({ q, radix: 64 });
  const scaled = (part: NetworkCost['fabric'], count: number) => ({
    ...part,
    count,
    optical: Math.round((part.optical * count) / part.count),
    dollars: (part.dollars * count) / part.count,
    watts: (part.watts * count) / part.count,
  });
  const fabric = scaled(built.fabric, links);
  const endpointCables = scaled(built.endpointCables, endpoints);
  const switchDollars = (built.switchDollars * switches) / built.switches;
  const switchWatts = (built.switchWatts * switches) / built.switches;
  return totalCost({ endpoints, switches, links, switchDollars, switchWatts, fabric, endpointCables });
}
