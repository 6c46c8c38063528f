// Makes test/goldens/cluster/simgrid.json: flows on links and their completion times by SimGrid's plain max-min model.
//
//   apt-get install libsimgrid-dev && npm run build:ts
//   g++ -O1 -std=c++17 -o simgrid_flows scripts/goldens/simgrid_flows.cpp -lsimgrid
//   node scripts/goldens/simgrid.mjs ./simgrid_flows
//
// SimGrid's default factors bend bandwidth and latency towards TCP; all are switched off here. It also gives flows shares by
// the inverse of their latency, so that latencies are added to the starts and its links have none.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { buildNetwork } from '../../dist/cluster/build.js';
import { Router } from '../../dist/cluster/routing.js';
import { Random } from '../../dist/numerics/random.js';
import { parseScenario } from '../../dist/spec/scenario.js';

const PLAIN = [
  'network/model:CM02',
  'network/crosstraffic:0',
  'network/bandwidth-factor:1',
  'network/latency-factor:1',
  'network/weight-S:0',
  'network/TCP-gamma:0',
  'maxmin/precision:1e-9',
];
const [binary] = process.argv.slice(2);
const VERSION = execFileSync(binary, ['--version'], { input: 'links 0 flows 0' })
  .toString()
  .match(/version ([\d.]+)/)?.[1];

/** Links of a route through a network, each with an eighth to all of its rate, and microseconds of latency. */
function onNetwork(kind, topology, seed) {
  const random = new Random(seed);
  const spec = parseScenario({ name: kind, network: { topology }, routing: { mode: 'ecmp', seed } }, kind);
  const network = buildNetwork(spec.network);
  const router = new Router(network, spec.routing);
  const capacity = Array.from({ length: 2 * network.cableCount }, () => 1e9 * (1 + random.below(8)));
  return { random, capacity, pathOf: (a, b) => router.route(a, b).channels, ends: network.endpoints.length };
}

/** A path over random links. */
function onRandomLinks(seed) {
  const random = new Random(seed);
  const count = 3 + random.below(20);
  const capacity = Array.from({ length: count }, () => 1e8 * (1 + random.below(30)));
  const pathOf = () =>
    random.shuffle(Array.from({ length: count }, (_, l) => l)).slice(0, 1 + random.below(Math.min(6, count)));
  return { random, capacity, pathOf, ends: 1000 };
}

const PLACES = [
  ['random links', (seed) => onRandomLinks(seed)],
  ['fat-tree', (seed) => onNetwork('fat-tree', { kind: 'fat-tree', endpoints: 32, radix: 8 }, seed)],
  [
    'fat-tree of three layers',
    (seed) => onNetwork('ft3', { kind: 'fat-tree', layers: 3, endpoints: 16, radix: 4 }, seed),
  ],
  ['dragonfly', (seed) => onNetwork('dragonfly', { kind: 'dragonfly', p: 2, a: 4, h: 2 }, seed)],
  ['slim fly', (seed) => onNetwork('slim-fly', { kind: 'slim-fly', q: 5, endpointsPerSwitch: 1 }, seed)],
];

/** Flows at random, to one in an incast, or in a shift; starts together or staggered. */
function flowsOf({ random, pathOf, ends }, pattern, staggered) {
  const count = 20 + random.below(25);
  return Array.from({ length: count }, (_, i) => {
    const from = pattern === 'shift' ? i % ends : random.below(ends);
    let to = pattern === 'incast' ? 0 : pattern === 'shift' ? (i + 5) % ends : random.below(ends);
    if (to === from) to = (from + 1) % ends;
    const bytes = random.below(4) === 0 ? 10e6 : 1e6 + random.below(50e6);
    return { start: staggered ? random.below(40000) * 1e-6 : 0, bytes, path: pathOf(from, to) };
  });
}

const cases = [];
for (const [name, place] of PLACES) {
  for (const pattern of ['random', 'incast', 'shift']) {
    for (const staggered of [false, true]) {
      for (const repeat of [0, 1]) {
        if (repeat === 1 && pattern !== 'random') continue;
        const where = place(cases.length + 1);
        const flows = flowsOf(where, pattern, staggered);
        // Only the links in use, numbered anew.
        const used = [...new Set(flows.flatMap(({ path }) => path))];
        const links = used.map((l) => [
          where.capacity[l],
          where.random.below(2) * (1 + where.random.below(9)) * 1e-6,
        ]);
        const renamed = flows.map((flow) => ({ ...flow, path: flow.path.map((l) => used.indexOf(l)) }));
        cases.push({ name: `${name}, ${pattern}${staggered ? ', staggered' : ''}`, links, flows: renamed });
      }
    }
  }
}

for (const made of cases) {
  const lines = [
    `links ${made.links.length}`,
    ...made.links.map(([capacity]) => `${capacity} 0`),
    `flows ${made.flows.length}`,
    ...made.flows.map(({ start, bytes, path }) => {
      const begin = path.reduce((sum, l) => sum + made.links[l][1], start);
      return `${begin} ${bytes} ${path.length} ${path.join(' ')}`;
    }),
  ];
  const args = PLAIN.map((setting) => `--cfg=${setting}`);
  const output = execFileSync(binary, [...args, '--log=root.thres:critical'], {
    input: `${lines.join('\n')}\n`,
  });
  made.flows = made.flows.map(({ start, bytes, path }) => [start, bytes, path]);
  made.ends = output.toString().trim().split('\n').map(Number);
}
mkdirSync(new URL('../../test/goldens/cluster/', import.meta.url), { recursive: true });
const text = `{"simgrid":${JSON.stringify(VERSION)},"cases":[\n${cases.map((c) => JSON.stringify(c)).join(',\n')}\n]}\n`;
writeFileSync(new URL('../../test/goldens/cluster/simgrid.json', import.meta.url), text);
console.log(`${cases.length} cases`);
