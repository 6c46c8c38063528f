import { availableParallelism } from 'node:os';
import { type Command, Option } from 'commander';
import { UserError } from '../errors.js';
import { OBJECTIVES, type Objective, type SearchResult } from '../plan/search.js';
import { SERVE_OBJECTIVES, type ServeObjective } from '../plan/serve-search.js';
import { integer, real } from './options.js';
import {
  addInputOptions,
  FORMATS,
  type Format,
  type PlanInputFlags,
  readCluster,
  readShape,
} from './plan-input.js';
import { onRank } from './ranks.js';
import { type Outcome, runs, type Session } from './session.js';

/** `fathom plan search`: of training, or of serving where the objective is one of serving. */

interface SearchFlags extends PlanInputFlags {
  objective: Objective | ServeObjective;
  formats: string;
  show: number;
  svg?: string;
  save?: string;
  // Of training.
  batch: number;
  length: number;
  nodeLimits?: string;
  maxStep: number;
  maxCost: number;
  limit: number;
  threads?: number;
  // Of serving.
  context: number;
  prompt: number;
  output: number;
  acceptance: number;
  maxTpot: number;
  minRate: number;
}

export function addSearch(group: Command): void {
  const command = group
    .command('search')
    .description('predict every plan of training or serving on the cluster, and say which is best and why');
  addInputOptions(command)
    .addOption(
      new Option('--objective <what>', 'is least; tpot and serve-cost search for how to serve')
        .choices([...OBJECTIVES, ...SERVE_OBJECTIVES])
        .default('step-time'),
    )
    .option('--formats <list>', 'formats of the GEMMs', 'fp8,bf16')
    .option('--show <n>', 'plans to show', integer(1), 10)
    .option(
      '--svg <file>',
      'write the front as a figure: step time and memory, or time per token and tokens a device',
    );
  addTrainingOptions(command);
  addServingOptions(command);
  runs<SearchFlags>(command, planSearch);
}

const addTrainingOptions = (command: Command): Command =>
  command
    .option('--batch <n>', 'training: sequences of a step', integer(1), 15360)
    .option('--length <n>', 'training: tokens of a sequence', integer(1), 4096)
    .option('--node-limits <list>', "training: limits of nodes a token to try (default: the model's own)")
    .option('--max-step <s>', 'training: leave slower plans out', real(0), Number.POSITIVE_INFINITY)
    .option(
      '--max-cost <dollars>',
      'training: leave dearer plans out, per trillion tokens',
      real(0),
      Number.POSITIVE_INFINITY,
    )
    .option('--save <file>', 'training: write the best plan, which fathom launch --plan starts')
    .option('--limit <n>', 'training: plans to predict at most', integer(1), 1_000_000)
    .option(
      '--threads <n>',
      'training: threads that search, of each rank under mpirun (default: all cores)',
      integer(1),
    );

const addServingOptions = (command: Command): Command =>
  command
    .option('--context <n>', 'serving: tokens in the cache of a sequence', integer(1), 4096)
    .option('--prompt <n>', 'serving: tokens of a prompt', integer(1), 4096)
    .option('--output <n>', 'serving: tokens of an answer', integer(1), 1024)
    .option('--acceptance <p>', 'serving: of a draft by MTP', real(0, 1), 0.85)
    .option(
      '--max-tpot <ms>',
      'serving: leave plans with longer times per token out',
      real(0),
      Number.POSITIVE_INFINITY,
    )
    .option(
      '--min-rate <tokens>',
      'serving: leave plans with fewer tokens a second and device out',
      real(0),
      0,
    );

async function planSearch(session: Session, flags: SearchFlags): Promise<Outcome> {
  const serving = (SERVE_OBJECTIVES as readonly string[]).includes(flags.objective);
  return serving ? serveSearch(flags) : trainSearch(session, flags);
}

function formatsOf({ formats }: SearchFlags): Format[] {
  return formats.split(',').map((name) => {
    if ((FORMATS as readonly string[]).includes(name)) return name as Format;
    throw new UserError(`format "${name}" is not known; take some of ${FORMATS.join(', ')}`);
  });
}

function nodeLimitsOf({ nodeLimits }: SearchFlags): (number | null)[] {
  if (nodeLimits === undefined) return [null];
  return nodeLimits.split(',').map((text) => {
    const limit = Number(text);
    if (Number.isInteger(limit) && limit > 0) return limit;
    throw new UserError(`--node-limits has "${text}", which is no number of nodes; write it as in 2,4,8`);
  });
}

async function trainSearch(session: Session, flags: SearchFlags): Promise<Outcome> {
  const { searchInParallel, searchOnRanks } = await import('./plan-search.js');
  const input = {
    globalBatch: flags.batch,
    length: flags.length,
    formats: formatsOf(flags),
    nodeLimits: nodeLimitsOf(flags),
    objective: flags.objective as Objective,
    mostStepSeconds: flags.maxStep,
    mostDollars: flags.maxCost,
    limit: flags.limit,
  };
  const { launchedRanks } = await import('../expert/transport/addon.js');
  const system = () => [readShape(flags.model), readCluster(flags, 256)] as const;
  if (launchedRanks() > 1) {
    const { openRanks, threadsOfRank } = await import('../expert/ranks.js');
    return onRank(
      () => openRanks({}),
      async (transport) => {
        const threads = flags.threads ?? threadsOfRank(transport);
        const result = await searchOnRanks(transport, session, ...system(), input, threads);
        return transport.rank === 0 ? found(flags, result) : {};
      },
    );
  }
  const threads = flags.threads ?? availableParallelism();
  return found(flags, await searchInParallel(session, ...system(), input, threads));
}

async function found(flags: SearchFlags, result: SearchResult): Promise<Outcome> {
  const { writeFront } = await import('./plan-search.js');
  const { searchText } = await import('./plan-text.js');
  if (flags.svg !== undefined) writeFront(flags.svg, result);
  if (flags.save !== undefined) await saveBest(flags, flags.save, result);
  const { ranked, front, ...counts } = result;
  const json = { ...counts, ranked: ranked.slice(0, flags.show), front };
  return { json, text: searchText(result, flags.show) };
}

async function saveBest(flags: SearchFlags, file: string, { ranked }: SearchResult): Promise<void> {
  const { writePlanFile } = await import('./plan-file.js');
  const best = ranked[0];
  if (!best) throw new UserError(`no plan fits, so that there is none to write into ${file}`);
  const { machine, nodes } = readCluster(flags, 256);
  writePlanFile(file, {
    model: flags.model,
    nodes,
    devicesPerNode: machine.node.devices,
    plan: best.plan,
  });
}

async function serveSearch(flags: SearchFlags): Promise<Outcome> {
  const { searchServing } = await import('../plan/serve-search.js');
  const { serveSearchText } = await import('./plan-text.js');
  const { objective, context, prompt, output, acceptance } = flags;
  const sizes = { context, prompt, output, acceptance };
  const result = searchServing(readShape(flags.model), readCluster(flags, 16), {
    ...sizes,
    objective: objective as ServeObjective,
    formats: formatsOf(flags),
    mostTokenSeconds: flags.maxTpot / 1e3,
    leastTokensPerSecond: flags.minRate,
  });
  if (flags.svg !== undefined) {
    const { writeServeFront } = await import('./plan-search.js');
    writeServeFront(flags.svg, result);
  }
  const { ranked, front, ...counts } = result;
  const json = { ...counts, ranked: ranked.slice(0, flags.show), front };
  return { json, text: serveSearchText(result, flags.show) };
}
