import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../errors.js';
import { readJsonFile, writeFileAtomicallySync, writeFully } from '../files.js';
import { signedPercent } from '../report/numbers.js';
import { list, table } from '../report/table.js';
import { bytes, percent, si } from '../report/units.js';
import { type Link, type Machine, parseMachine } from '../spec/machine.js';
import { present } from './engine.js';
import { integer } from './options.js';
import { onRank } from './ranks.js';
import { type Outcome, runs, type Session } from './session.js';

interface CalibrateFlags {
  out?: string;
  threads?: number;
  steps: number;
  check?: boolean;
}

/** Name of the last check's file, beside the Machine file. */
export const PREDICTIONS = 'predictions.json';

/** `fathom calibrate`. */
export function addCalibrate(program: Command): void {
  const command = program
    .command('calibrate')
    .description(
      'measure this machine into a Machine file, which fathom plan takes and fathom train predicts with; under mpirun, what joins the ranks',
    )
    .option('--out <file>', 'the Machine file (default: machine.json in ~/.cache/fathom)')
    .option('--threads <n>', 'threads (default: all CPUs)', integer(1, 1024))
    .option('--steps <n>', 'timed steps of each case', integer(1), 5)
    .option(
      '--check',
      'predict and measure steps that a calibration has not seen, with the file that is there; fathom paper shows the last check',
    );
  runs<CalibrateFlags>(command, runCalibrate);
}

async function runCalibrate(session: Session, { out, check, ...flags }: CalibrateFlags): Promise<Outcome> {
  const { cacheFolder } = await import('../bench/random-model.js');
  const file = out ?? join(cacheFolder(), 'machine.json');
  const { launchedRanks } = await import('../expert/transport/addon.js');
  if (launchedRanks() > 1) return calibrateLinks(file);
  if (check) return checkFile(session, file, flags.steps);
  const { calibrate } = await import('../bench/calibrate.js');
  const machine = await calibrate({ steps: flags.steps, ...present({ threads: flags.threads }) }, session);
  writeMachine(file, machine);
  return { json: { file, machine }, text: `${machineText(machine)}\n\n${file}` };
}

/** Under mpirun: what joins the ranks, written into the Machine file that is there. */
async function calibrateLinks(file: string): Promise<Outcome> {
  const { openRanks } = await import('../expert/ranks.js');
  const { measureLinks } = await import('../bench/links.js');
  return onRank(
    () => openRanks({}),
    async (transport) => {
      if (!existsSync(file))
        throw new UserError(`${file} is missing; write it with fathom calibrate, without mpirun, first`);
      const machine = parseMachine(readJsonFile(file), file);
      const date = new Date().toISOString().slice(0, 10);
      const source = `mpirun -n ${transport.placement.size} fathom calibrate, ${transport.library}, ${date}`;
      const { perHost, exchange, ...links } = measureLinks(transport, source);
      const kernels = { ...machine.kernels, exchange };
      const joined = { ...machine, kernels, node: { devices: perHost, ...links } };
      if (transport.rank === 0) writeMachine(file, joined);
      return { json: { file, machine: joined }, text: `${linksText(joined)}\n\n${file}` };
    },
  );
}

function writeMachine(file: string, machine: Machine): void {
  const content = new TextEncoder().encode(`${JSON.stringify(machine, null, 2)}\n`);
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, content, 0));
}

/** Exit code 1 where the predictions are worse than they must be. */
async function checkFile(session: Session, file: string, steps: number): Promise<Outcome> {
  const { validate } = await import('../bench/predictions.js');
  const machine = parseMachine(readJsonFile(file), file);
  if (!machine.engine)
    throw new UserError(`${file} has no costs of the engine; write it with fathom calibrate`);
  const result = await validate(machine, machine.engine, steps, session);
  if (!result.met) process.exitCode = 1;
  const kept = join(dirname(file), PREDICTIONS);
  const content = new TextEncoder().encode(`${JSON.stringify(result, null, 2)}\n`);
  writeFileAtomicallySync(kept, (descriptor) => writeFully(descriptor, content, 0));
  const right = (title: string) => ({ title, align: 'right' as const });
  const rows = table(
    [{ title: 'step' }, ...['predicted', 'measured', 'deviation', 'memory predicted', 'measured'].map(right)],
    result.predictions.map((one) => [
      one.name,
      si(one.predictedSeconds, 's'),
      si(one.measuredSeconds, 's'),
      signedPercent(one.deviation),
      one.predictedBytes === null ? '' : bytes(one.predictedBytes),
      one.measuredBytes === null ? '' : bytes(one.measuredBytes),
    ]),
  );
  const verdict = `median ${percent(result.medianDeviation)} (at most 10 %), worst ${percent(result.worstDeviation)} (at most 25 %)`;
  return { json: result, text: `${rows}\n\n${verdict}\n\n${kept}` };
}

const linkText = (link: Link | null): string =>
  link ? `${si(link.latencySeconds.value, 's')}, ${si(link.effectiveBytesPerSecond.value, 'B/s')}` : 'none';

const linksText = ({ node, kernels }: Machine): string =>
  list([
    ['dispatch, combine', si(kernels.exchange?.points[0]?.dispatchBytesPerSecond ?? Number.NaN, 'B/s')],
    ['ranks of a host', String(node.devices)],
    ['between them', linkText(node.scaleUp)],
    ['between hosts', linkText(node.scaleOut)],
  ]);

const machineText = ({ name, device, engine }: Machine): string =>
  list([
    ['machine', name],
    ['threads', String(engine?.threads)],
    ['BF16 peak', si(device.peakFlopsPerSecond.bf16.value, 'FLOPS')],
    ['FP32 peak', si(device.peakFlopsPerSecond.fp32?.value ?? Number.NaN, 'FLOPS')],
    ['memory', `${bytes(device.memoryBytes.value)}, ${si(device.memoryBytesPerSecond.value, 'B/s')}`],
    ['operations', `${Object.keys(engine?.ops ?? {}).length} kinds with costs`],
  ]);
