import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { SizeCurve } from '../report/size-curves.js';
import type { Scenario } from '../spec/scenario.js';
import * as text from './network-text.js';
import { openScenario, SCENARIO } from './open-scenario.js';
import { byteSize, integer, real } from './options.js';
import { type Outcome, runs, type Session } from './session.js';
import { writeText } from './write-text.js';

interface SimulateFlags {
  resolution?: number;
  mode?: Scenario['routing']['mode'];
  seed?: number;
  fold?: boolean;
  heat?: string;
  engine?: 'flow' | 'packet' | 'both';
}

/** `fathom network simulate`. */
export function addSimulate(group: Command): void {
  const command = group
    .command('simulate')
    .description(
      'run the workload of a scenario, by flows or packet by packet, and show times, bandwidths and how busy links are',
    )
    .argument('<scenario>', SCENARIO)
    .addOption(
      new Option(
        '--engine <name>',
        'flows that share links, every packet with queues and flow control, or both side by side',
      )
        .choices(['flow', 'packet', 'both'])
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
    )
    .option('--fold', 'run one flow for all that are alike, exactly: a uniform all-to-all over planes')
    .option('--heat <file>', 'draw how busy every link was (SVG)');
  runs<SimulateFlags>(command, async (session, flags, [given]) => {
    const scenario = withRouting(await openScenario(given!), flags);
    if (flags.engine === 'packet' || flags.engine === 'both') {
      return simulatePacketwise(session, scenario, flags, flags.engine === 'both');
    }
    const result = await simulateOne(session, scenario, flags);
    return { json: result, text: text.simulated(scenario, result, flags.resolution) };
  });
}

async function simulatePacketwise(
  session: Session,
  scenario: Scenario,
  { fold, resolution, heat }: SimulateFlags,
  beside: boolean,
): Promise<Outcome> {
  if (fold || resolution !== undefined)
    throw new UsageError('--fold and --resolution are for --engine flow; leave them out');
  const { simulatePackets } = await import('../cluster/packet/simulate.js');
  const { heatOf } = await import('../cluster/drawing.js');
  let tables: ReturnType<typeof heatOf> = [];
  const progress = session.progress(scenario.name);
  const packet = simulatePackets(scenario, {
    progress: (done, total) => progress.update({ done, total }),
    ...(heat === undefined ? {} : { uses: (network, shares) => (tables = heatOf(network, shares)) }),
  });
  progress.end();
  if (heat !== undefined) await drawHeat(heat, scenario.name, tables);
  const told = text.simulatedPackets(scenario, packet);
  if (!beside) return { json: packet, text: told };
  const flow = await simulateOne(session, scenario, {});
  const compared = text.compared([
    { ...flow, name: 'by flows' },
    { ...packet, name: 'by packets' },
  ]);
  return { json: { flow, packet }, text: `${told}\n\n${compared}` };
}

const withRouting = (scenario: Scenario, { mode, seed }: SimulateFlags): Scenario => ({
  ...scenario,
  routing: { ...scenario.routing, ...(mode ? { mode } : {}), ...(seed === undefined ? {} : { seed }) },
});

/** Runs flows, and draws how busy links were where that is asked for. */
export async function simulateOne(
  session: Session,
  scenario: Scenario,
  { resolution, fold = false, heat }: SimulateFlags,
) {
  const { simulate } = await import('../cluster/simulate.js');
  const { heatOf } = await import('../cluster/drawing.js');
  if (fold && heat !== undefined) throw new UsageError('--heat shows single links; leave --fold out');
  let tables: ReturnType<typeof heatOf> = [];
  const progress = session.progress(scenario.name);
  const result = simulate(scenario, {
    ...(resolution === undefined ? {} : { resolution }),
    fold,
    progress: (done, total) => progress.update({ done, total }),
    ...(heat === undefined ? {} : { uses: (network, shares) => (tables = heatOf(network, shares)) }),
  });
  progress.end();
  if (heat !== undefined) await drawHeat(heat, scenario.name, tables);
  return result;
}

async function drawHeat(
  file: string,
  name: string,
  tables: ReturnType<typeof import('../cluster/drawing.js').heatOf>,
): Promise<void> {
  const { heatSvg } = await import('../report/heat-svg.js');
  await writeText(file, heatSvg(`${name}: how busy links were`, tables));
}

/** `fathom network failures`. */
export function addFailures(group: Command): void {
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

interface CurveFlags {
  from: number;
  to: number;
  factor: number;
  out?: string;
}

/** `fathom network curve`. */
export function addCurve(group: Command): void {
  const command = group
    .command('curve')
    .description('run the traffic of scenarios at many sizes: time and bandwidth, side by side')
    .argument('<scenarios...>', SCENARIO)
    .option('--from <size>', 'smallest, as in 64, 4KiB', byteSize, 64)
    .option('--to <size>', 'largest, as in 16GiB', byteSize, 16 * 2 ** 30)
    .option('--factor <n>', 'between one size and the next', integer(2), 4)
    .option('--out <dir>', 'draw latency.svg and bandwidth.svg here');
  runs<CurveFlags>(command, async (session, { from, to, factor, out }, names) => {
    const { curveOf, sizesOf } = await import('../cluster/curves.js');
    if (to < from) throw new UsageError(`--to ${to} is below --from ${from}; exchange them`);
    const sizes = sizesOf(from, to, factor);
    const progress = session.progress('curve');
    let done = 0;
    const step = () => progress.update({ done: ++done, total: sizes.length * names.length });
    const curves = [];
    for (const name of names) {
      const scenario = await openScenario(name);
      curves.push({ name: scenario.name, points: curveOf(scenario, sizes, step) });
    }
    progress.end();
    const written = out === undefined ? [] : await drawCurves(out, curves);
    return { json: { curves, written }, text: text.curves(curves, written) };
  });
}

async function drawCurves(folder: string, curves: readonly SizeCurve[]): Promise<string[]> {
  const { join } = await import('node:path');
  const { bandwidthSvg, latencySvg } = await import('../report/size-curves.js');
  const title = curves.map(({ name }) => name).join(', ');
  const files = { 'latency.svg': latencySvg, 'bandwidth.svg': bandwidthSvg };
  const written: string[] = [];
  for (const [file, draw] of Object.entries(files)) {
    await writeText(join(folder, file), draw(title, curves));
    written.push(join(folder, file));
  }
  return written;
}
