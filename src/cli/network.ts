import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { PlottedReproduction } from '../paper/network-figures.js';
import type { Reproduction } from '../paper/row.js';
import { NETWORK_PRESETS } from '../spec/network-presets.js';
import type { Prices } from '../spec/prices.js';
import type { Scenario } from '../spec/scenario.js';
import * as text from './network-text.js';
import { openScenario } from './open-scenario.js';
import { integer, real } from './options.js';
import { type Outcome, runs, type Session } from './session.js';

const SCENARIO = `a scenario file (JSON), or one of: ${Object.keys(NETWORK_PRESETS).join(', ')}`;

/** `fathom network describe|cost|simulate|compare`. */
export function addNetwork(program: Command): void {
  const group = program
    .command('network')
    .description(
      'build, price and simulate cluster networks: fat-trees in planes and rails, Slim Fly, Dragonfly',
    );
  addDescribe(group);
  addCost(group);
  addSimulate(group);
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
  const { drawingOf } = await import('../cluster/describe.js');
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

async function costSweep(
  session: Session,
  endpoints: number | undefined,
  given: Prices | undefined,
): Promise<Outcome> {
  const { buildNetwork } = await import('../cluster/build.js');
  const { costOf } = await import('../cluster/cost.js');
  const { topologiesFor } = await import('../cluster/sizes.js');
  const { parseNetwork } = await import('../spec/network.js');
  const { PRICE_BOOKS } = await import('../spec/prices.js');
  const prices = given ?? PRICE_BOOKS['isca-2025'];
  const sizes = endpoints === undefined ? Array.from({ length: 13 }, (_, i) => 64 << i) : [endpoints];
  const progress = session.progress('cost');
  const rows = sizes.map((size, done) => {
    const networks = topologiesFor(size).map(({ name, topology }) => {
      if (!topology) return { name, cost: null };
      return { name, cost: costOf(buildNetwork(parseNetwork({ topology }, name)), 64, prices) };
    });
    progress.update({ done: done + 1, total: sizes.length });
    return { endpoints: size, networks };
  });
  progress.end();
  return { json: { prices, rows }, text: text.costSweep(rows, prices) };
}

interface SimulateFlags {
  resolution?: number;
  mode?: Scenario['routing']['mode'];
  seed?: number;
  fold?: boolean;
  engine?: 'flow' | 'packet';
}

function addSimulate(group: Command): void {
  const command = group
    .command('simulate')
    .description(
      'run the workload of a scenario, by flows or packet by packet, and show times, bandwidths and how busy links are',
    )
    .argument('<scenario>', SCENARIO)
    .addOption(
      new Option('--engine <name>', 'flows that share links, or every packet with queues and flow control')
        .choices(['flow', 'packet'])
        .default('flow'),
    )
    .addOption(
      new Option('--mode <name>', 'route in this way, in place of the scenario’s').choices([
        'static',
        'ecmp',
        'adaptive',
        'spray',
        'valiant',
      ]),
    )
    .option('--seed <n>', 'of hashes, in place of the scenario’s', integer(0))
    .option(
      '--resolution <share>',
      'count ends within this share of the time as one; exact without',
      real(0, 0.1),
    );
  runs<SimulateFlags>(command, async (session, flags, [given]) => {
    const scenario = withRouting(await openScenario(given!), flags);
    if (flags.engine === 'packet') return simulatePacketwise(session, scenario, flags);
    const result = await simulateOne(session, scenario, flags);
    return { json: result, text: text.simulated(scenario, result, flags.resolution) };
  });
}

async function simulatePacketwise(
  session: Session,
  scenario: Scenario,
  flags: SimulateFlags,
): Promise<Outcome> {
  if (flags.fold || flags.resolution !== undefined)
    throw new UsageError('--fold and --resolution are for --engine flow; leave them out');
  const { simulatePackets } = await import('../cluster/packet/simulate.js');
  const progress = session.progress(scenario.name);
  const result = simulatePackets(scenario, { progress: (done, total) => progress.update({ done, total }) });
  progress.end();
  return { json: result, text: text.simulatedPackets(scenario, result) };
}

const withRouting = (scenario: Scenario, { mode, seed }: SimulateFlags): Scenario => ({
  ...scenario,
  routing: { ...scenario.routing, ...(mode ? { mode } : {}), ...(seed === undefined ? {} : { seed }) },
});

async function simulateOne(
  session: Session,
  scenario: Scenario,
  { resolution, fold = false }: SimulateFlags,
) {
  const { simulate } = await import('../cluster/simulate.js');
  const progress = session.progress(scenario.name);
  const result = simulate(scenario, {
    ...(resolution === undefined ? {} : { resolution }),
    fold,
    progress: (done, total) => progress.update({ done, total }),
  });
  progress.end();
  return result;
}

function addFailures(group: Command): void {
  const command = group
    .command('failures')
    .description(
      'weigh failures of every kind of part: how often, what traffic loses meanwhile, what a training job gets done',
    )
    .argument('<scenario>', SCENARIO);
  runs<object>(command, async (_session, _flags, [given]) => {
    const { failuresOf } = await import('../cluster/reliability.js');
    const scenario = await openScenario(given!);
    const report = failuresOf(scenario);
    return { json: report, text: text.failures(report, scenario.reliability) };
  });
}

interface CompareFlags {
  preset?: 'paper';
  out?: string;
  tokens: number;
  seeds: number;
}

function addCompare(group: Command): void {
  const command = group
    .command('compare')
    .description(
      'run scenarios and put them side by side; or the paper’s tables and figures, theirs beside ours',
    )
    .argument('[scenarios...]', SCENARIO)
    .addOption(new Option('--preset <name>', 'what to compare with').choices(['paper']))
    .option('--out <dir>', 'write the figures (SVG) and a JSON file here')
    .option('--tokens <n>', 'a GPU, of figure 7', integer(1), 4096)
    .option('--seeds <n>', 'of ECMP’s hashes, of figure 8', integer(1), 20);
  runs<CompareFlags>(command, async (session, flags, names) => {
    if (flags.preset === 'paper' && names.length === 0) return comparePaper(session, flags);
    if (flags.preset || names.length < 2)
      throw new UsageError('name two or more scenarios, or --preset paper alone');
    const results = [];
    for (const name of names) results.push(await simulateOne(session, await openScenario(name), {}));
    return { json: { results }, text: text.compared(results) };
  });
}

async function comparePaper(session: Session, { out, tokens, seeds }: CompareFlags): Promise<Outcome> {
  const { table3 } = await import('../paper/table-3.js');
  const figures = await import('../paper/network-figures.js');
  const { PRICE_BOOKS } = await import('../spec/prices.js');
  const work: (() => Reproduction | PlottedReproduction)[] = [
    () => table3(PRICE_BOOKS['isca-2025']),
    figures.table5,
    figures.figure5,
    figures.figure6,
    () => figures.figure7(tokens),
    () => figures.figure8(seeds),
  ];
  const progress = session.progress('paper');
  const reproductions = work.map((make, i) => {
    const made = make();
    progress.update({ done: i + 1, total: work.length });
    return made;
  });
  progress.end();
  const written = out === undefined ? [] : await writeFigures(out, reproductions);
  return { json: { reproductions, written }, text: text.reproduced(reproductions, written) };
}

async function writeFigures(folder: string, reproductions: readonly (Reproduction | PlottedReproduction)[]) {
  const { join } = await import('node:path');
  const { lineSvg } = await import('../report/lines.js');
  const written: string[] = [];
  for (const reproduction of reproductions) {
    if (!('series' in reproduction)) continue;
    const { title, xLabel, yLabel, series } = reproduction;
    const file = join(folder, `${reproduction.source.toLowerCase().replaceAll(' ', '-')}.svg`);
    const curves = series.map(({ name, points }) => ({
      name,
      points: [...points].sort((a, b) => a.x - b.x),
    }));
    await writeText(file, lineSvg({ title, xLabel, yLabel, curves }));
    written.push(file);
  }
  const json = join(folder, 'network.json');
  await writeText(json, `${JSON.stringify(reproductions, null, 1)}\n`);
  return [...written, json];
}

async function writeText(file: string, content: string): Promise<void> {
  const { writeFileAtomicallySync, writeFully } = await import('../files.js');
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(content), 0));
}

async function openPrices(given: string): Promise<Prices> {
  const { readJsonFile } = await import('../files.js');
  const { PRICE_BOOKS, parsePrices } = await import('../spec/prices.js');
  if (Object.hasOwn(PRICE_BOOKS, given)) return PRICE_BOOKS[given as keyof typeof PRICE_BOOKS];
  return parsePrices(readJsonFile(given), given);
}
