import fs from 'node:fs';
import path from 'node:path';
import { selectBackend } from '../backend/select.js';
import { UsageError, UserError } from '../errors.js';
import type { LaunchedTransport, PlaneSettings } from '../expert/planes/open.js';
import { threadsOfRank } from '../expert/ranks.js';
import { Team, type TeamSettings } from '../expert/team.js';
import { Traffic } from '../expert/traffic.js';
import { nodesOf, type Transport } from '../expert/transport/transport.js';
import { parseWire, wireName } from '../expert/wire/format.js';
import { LANES } from '../model/context.js';
import { SILENT_UI, type Ui } from '../report/ui.js';
import { TrainingData } from './data.js';
import { checkHostMemory } from './host-memory.js';
import { type TrainResult, trainRun } from './run.js';
import { beginRun, planRun, type RunFile, type RunOptions } from './run-file.js';
import { listStates } from './state.js';
import { sequencesOfRank } from './trainer.js';

/** What training over ranks is asked for beside `RunOptions`. */
export interface RankOptions extends PlaneSettings {
  /** Whether two halves of each micro-batch overlap; by default where experts are on other nodes. */
  overlap?: boolean;
  /** Steps between comparisons of what ranks hold in common; 50 by default, 0 for none. */
  digestEvery?: number;
}

/** What a run over ranks reports beside `TrainResult`. */
export interface RankedResult extends TrainResult {
  ranks: {
    size: number;
    nodes: number;
    expertParallel: number;
    wire: string;
    library: string;
    /** Sums over all ranks and steps of this process. */
    traffic: Traffic;
  };
}

/**
 * Trains over the ranks of an MPI job; collective.
 * @returns on every rank; rank 0's is the one to show
 * @throws on rank 0 UserError or UsageError, on others ReportedError
 */
export async function trainOnRanks(
  transport: LaunchedTransport,
  options: RunOptions & RankOptions,
  ui: Ui,
): Promise<RankedResult> {
  const { placement } = transport;
  // Messages between ranks need a team, whose shape needs the model: until it is known, experts lie anyhow.
  const alone = { expertParallel: 1, wire: parseWire('fp32') };
  const provisional = new Team(transport, alone, { n_routed_experts: 1 });
  const { settings, full } = await provisional.together(() => settingsOf(transport, options));
  const { run, team } = await openTogether(provisional, full, settings);
  await checkHostMemory(team, run.model);
  const backend = selectBackend(options.backend ?? 'auto', options.threads ?? threadsOfRank(transport));
  const own = team.leads ? ui : SILENT_UI;
  const part = { index: team.rank, of: team.size };
  const data = await team.leadFirst(() => TrainingData.open(run, own, part));
  const digestEvery = options.digestEvery ?? 50;
  const result = await trainRun(run, backend, data, own, full, { team, digestEvery });
  const traffic = sumTraffic(team);
  const nodes = nodesOf(placement);
  const { library } = transport;
  const { expertParallel, wire } = settings;
  return {
    ...result,
    ranks: {
      size: team.size,
      nodes,
      expertParallel,
      wire: wireName(wire),
      library: library.split(',')[0]!,
      traffic,
    },
  };
}

function settingsOf(
  transport: Transport,
  options: RunOptions & RankOptions,
): { settings: TeamSettings; full: RunOptions & RankOptions } {
  if (options.capture || options.captureEvery !== undefined) {
    throw new UsageError(
      '--capture works with one process only, as no rank sees whole tensors; leave it out',
    );
  }
  const expertParallel = options.expertParallel ?? transport.placement.size;
  const wire = parseWire(options.wire ?? (options.precision === 'fp32' ? 'fp32' : 'bf16'));
  const settings = { expertParallel, wire, checksums: options.checksums, overlap: options.overlap };
  return { settings, full: { ...options, ...routingOf(transport, options, expertParallel) } };
}

/** One group of experts for each node, where tokens are limited to some of them. */
function routingOf(
  { placement }: Transport,
  { nodesLimit }: RankOptions,
  expertParallel: number,
): Pick<RunOptions, 'routing'> {
  if (nodesLimit === undefined) return {};
  const nodes = Math.max(1, expertParallel / placement.perNode);
  if (nodesLimit > nodes) {
    throw new UsageError(`--nodes-limit ${nodesLimit} exceeds the ${nodes} nodes that the experts are on`);
  }
  return { routing: { groups: nodes, groupsPerToken: nodesLimit } };
}

/** Opens the run on all ranks, which must agree on it. */
async function openTogether(
  provisional: Team,
  options: RunOptions,
  settings: TeamSettings,
): Promise<{ run: RunFile; team: Team }> {
  const { transport } = provisional;
  const { run, json } = await provisional.together(() => planRun(options));
  await provisional.together(() => checkBatch(run, transport.placement.size, settings));
  await provisional.agreeOn(
    'the training configuration',
    JSON.stringify([run.config, run.source, options.resume]),
  );
  const team = await provisional.together(() => new Team(transport, settings, run.model));
  await team.together(() => team.leads && json !== undefined && beginRun(run, json));
  await team.together(() => {
    if (fs.existsSync(path.join(run.out, 'run.json'))) return;
    throw new UserError(`${run.out} is not there: --out must be a folder that all hosts share`);
  });
  if (options.resume) await team.agreeOn('the newest checkpoint', newestCheckpoint(run.out));
  return { run, team };
}

function checkBatch({ config }: RunFile, ranks: number, { overlap }: TeamSettings): void {
  const sequences = config.batchSequences / config.microBatches;
  const batch = `batchSequences ${config.batchSequences} / microBatches ${config.microBatches}`;
  const own = sequencesOfRank(config, ranks);
  if (!Number.isInteger(own)) {
    throw new UserError(
      `${ranks} ranks do not divide the ${sequences} sequences of a micro-batch (${batch}); take a number of ranks that does, or another batchSequences`,
    );
  }
  if (overlap && own % LANES !== 0) {
    throw new UserError(
      `--overlap needs an even number of sequences of a micro-batch on each rank, not ${own} (${batch} / ${ranks} ranks); leave it out, or take another batchSequences`,
    );
  }
}

/** Content of the newest checkpoint's description, which holds the checksums of its files; empty without one. */
function newestCheckpoint(out: string): string {
  const [newest] = listStates(path.join(out, 'checkpoints'));
  return newest ? `${newest.step} ${fs.readFileSync(path.join(newest.folder, 'state.json'), 'utf8')}` : '';
}

function sumTraffic(team: Team): Traffic {
  const names = Object.keys(new Traffic()) as (keyof Traffic)[];
  const numbers = names.filter((name) => typeof new Traffic()[name] === 'number');
  const all = team.takeTraffic();
  const sums = team.sum(
    Float64Array.from(numbers, (name) => all.reduce((n, t) => n + (t[name] as number), 0)),
  );
  return Object.assign(new Traffic(), Object.fromEntries(numbers.map((name, i) => [name, sums[i]])));
}
