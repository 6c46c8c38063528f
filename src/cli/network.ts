import type { Command } from 'commander';
import { UsageError } from '../errors.js';
import type { Prices } from '../spec/prices.js';
import type { Scenario } from '../spec/scenario.js';
import { addCompare } from './network-compare.js';
import { addCurve, addFailures, addSimulate } from './network-simulate.js';
import * as text from './network-text.js';
import { openScenario, SCENARIO } from './open-scenario.js';
import { integer } from './options.js';
import { type Outcome, runs, type Session } from './session.js';
import { writeText } from './write-text.js';

/** `fathom network describe|cost|simulate|curve|failures|compare`. */
export function addNetwork(program: Command): void {
  const group = program
    .command('network')
    .description(
      'build, price and simulate cluster networks: fat-trees in planes and rails, Slim Fly, Dragonfly',
    );
  addDescribe(group);
  addCost(group);
  addSimulate(group);
  addCurve(group);
  addFailures(group);
  addCompare(group);
}

function addDescribe(group: Command): void {
  const command = group
    .command('describe')
    .description(
      'count the parts of a network and check what it claims: ports, connectivity, planes, bisection',
    )
    .argument('<scenario>', SCENARIO)
    .option('--svg <file>', 'draw it');
  runs<{ svg?: string }>(command, async (_session, { svg }, [given]) => {
    const { buildNetwork } = await import('../cluster/build.js');
    const { validate } = await import('../cluster/validate.js');
    const { describeParts } = await import('../cluster/describe.js');
    const scenario = await openScenario(given!);
    const network = buildNetwork(scenario.network);
    const validation = validate(network, scenario.network.topology);
    const parts = describeParts(network);
    if (svg) await draw(svg, network, scenario.name);
    const json = { name: scenario.name, topology: scenario.network.topology, parts, ...validation };
    return { json, text: text.described(scenario, parts, validation) };
  });
}

async function draw(
  file: string,
  network: import('../cluster/graph.js').Network,
  title: string,
): Promise<void> {
  const { drawingOf } = await import('../cluster/drawing.js');
  const { topologySvg } = await import('../report/topology-svg.js');
  await writeText(file, topologySvg(title, drawingOf(network)));
}

interface CostFlags {
  endpoints?: number;
  prices?: string;
}

function addCost(group: Command): void {
  const command = group
    .command('cost')
    .description(
      'price a network by the Slim Fly method; without one, the five of the paper over 64 to 262,144 endpoints',
    )
    .argument('[scenario]', SCENARIO)
    .option('--endpoints <n>', 'compare the five topologies at this size', integer(2, 262144))
    .option('--prices <file>', 'prices of one’s own (JSON), or slim-fly-2014, isca-2025');
  runs<CostFlags>(command, async (session, flags, [given]) => {
    const prices = flags.prices === undefined ? undefined : await openPrices(flags.prices);
    if (given !== undefined) {
      if (flags.endpoints !== undefined)
        throw new UsageError('--endpoints is for comparing topologies; leave the scenario out');
      return costOne(await openScenario(given), prices);
    }
    return costSweep(session, flags.endpoints, prices);
  });
}

async function costOne(scenario: Scenario, given: Prices | undefined): Promise<Outcome> {
  const { buildNetwork } = await import('../cluster/build.js');
  const { costOf } = await import('../cluster/cost.js');
  const { uniformThroughput } = await import('../cluster/sizes.js');
  const { pricesOf } = await import('../spec/scenario.js');
  const prices = given ?? pricesOf(scenario);
  const network = buildNetwork(scenario.network);
  const cost = costOf(network, scenario.network.topology.radix, prices);
  const allToAllShare = uniformThroughput(network);
  const json = { name: scenario.name, prices, ...cost, allToAllShare };
  return { json, text: text.cost(scenario, cost, prices, allToAllShare) };
}

/** Of the walk that gives what an all-to-all gets, for each of many networks. */
const SWEEP_STEPS = 2e8;

async function costSweep(
  session: Session,
  endpoints: number | undefined,
  given: Prices | undefined,
): Promise<Outcome> {
  const { buildNetwork } = await import('../cluster/build.js');
  const { costOf } = await import('../cluster/cost.js');
  const { topologiesFor, uniformThroughput } = await import('../cluster/sizes.js');
  const { parseNetwork } = await import('../spec/network.js');
  const { PRICE_BOOKS } = await import('../spec/prices.js');
  const prices = given ?? PRICE_BOOKS['isca-2025'];
  const sizes = endpoints === undefined ? Array.from({ length: 13 }, (_, i) => 64 << i) : [endpoints];
  const progress = session.progress('cost');
  const rows = sizes.map((size, done) => {
    const networks = topologiesFor(size).map(({ name, topology }) => {
      if (!topology) return { name, cost: null, allToAllShare: null };
      const network = buildNetwork(parseNetwork({ topology }, name));
      const allToAllShare = uniformThroughput(network, SWEEP_STEPS);
      return { name, cost: costOf(network, 64, prices), allToAllShare };
    });
    progress.update({ done: done + 1, total: sizes.length });
    return { endpoints: size, networks };
  });
  progress.end();
  return { json: { prices, rows }, text: text.costSweep(rows, prices) };
}

async function openPrices(given: string): Promise<Prices> {
  const { readJsonFile } = await import('../files.js');
  const { PRICE_BOOKS, parsePrices } = await import('../spec/prices.js');
  if (Object.hasOwn(PRICE_BOOKS, given)) return PRICE_BOOKS[given as keyof typeof PRICE_BOOKS];
  return parsePrices(readJsonFile(given), given);
}
