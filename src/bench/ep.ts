import { loadAddon } from '../backend/native/addon.js';
import { UserError } from '../errors.js';
import { loadMpiAddon } from '../expert/transport/addon.js';
import { parseWire, rowBytes } from '../expert/wire/format.js';
import type { Ui } from '../report/ui.js';
import { type CutResult, measureCuts } from './ep/cuts.js';
import type { ExchangeCase, ExchangeResult } from './ep/exchange.js';
import { type FaultResult, measureFaults } from './ep/faults.js';
import { type FlipResult, measureFlips } from './ep/flips.js';
import { makeHosts, noHosts } from './ep/hosts.js';
import { capture, localRanks, runTasks } from './ep/launch.js';
import { measurePlanes, type PlanesReport } from './ep/planes.js';
import { type TorchResult, torchExchange } from './ep/torch.js';
import type { TrainingCase, TrainingResult } from './ep/training.js';
import { describeMachine, type Machine } from './machine.js';

export interface EpOptions {
  /** Numbers of ranks on this host. */
  ranks: readonly number[];
  /** Bytes of tokens that a rank dispatches. */
  sizes: readonly number[];
  /** Whether hosts with slow links are measured as well, where they can be made. */
  links: boolean;
  /** Bytes a second of each host's link. */
  rates: readonly number[];
  /** The preset whose training steps are measured, if any. */
  training: TrainingCase['model'] | undefined;
  /** Whether ranks and links are made to fail (Linux). */
  faults: boolean;
  /** Python environment with PyTorch for comparison. */
  peers?: string | undefined;
}

/** Dispatch and combine on one host beside MPI_Alltoallv, and between hosts of our own with slow links. */
export interface EpReport {
  machine: Machine;
  mpi: string;
  /** Within this host. */
  sizes: { ranks: number; dispatchBytes: number; result: ExchangeResult }[];
  /** Steps of one rank with two threads, and of two ranks with one each. */
  training: { model: string; oneRank: TrainingResult; twoRanks: TrainingResult } | null;
  links: LinkReport[];
  /** Why there are no links, if so. */
  linksSkipped: string | null;
  /** Hosts on two planes, of each speed. */
  planes: PlanesReport[];
  /** How training met failures. */
  faults: FaultResult[];
  /** How it went on while links were cut. */
  cuts: CutResult[];
  /** What checks tell of single flipped bits. */
  flips: FlipResult[];
}

/** Four hosts of two ranks, one link each. */
export interface LinkReport {
  bytesPerSecond: number;
  hosts: number;
  ranksPerHost: number;
  /** Tokens limited to so many nodes. */
  limits: { nodes: number; result: ExchangeResult }[];
  /** Formats back. */
  formats: { combine: string; result: ExchangeResult }[];
  /** Steps on two hosts of one rank each; null where none was asked for. */
  training: TrainingResult | null;
  /** The same tokens to every expert by itself, BF16, in PyTorch distributed; null where it is not installed. */
  torch: TorchResult | null;
}

const HIDDEN = 2048;
const HOSTS = 4;
const PER_HOST = 2;

/** Tokens whose experts are each on another rank, so that every copy of a row is moved. */
function caseOf(ranks: number, bytes: number): ExchangeCase {
  const topK = Math.min(8, ranks);
  const row = rowBytes(parseWire('bf16').dispatch, HIDDEN);
  const tokens = Math.max(1, Math.round(bytes / row / topK));
  const rounds = bytes > 2 ** 24 ? 5 : 11;
  const common = { hidden: HIDDEN, topK, groupsPerToken: topK, wire: 'bf16:bf16', rounds, bare: true };
  return { tokens, experts: ranks, groups: ranks, ...common };
}

/** @throws UserError where MPI or the addons are missing */
export async function benchEp(options: EpOptions, ui: Ui): Promise<EpReport> {
  const addon = loadAddon();
  if (!addon) throw new UserError('the exchange is measured with the native addon: npm run build:native');
  loadMpiAddon();
  const { stdout } = await capture('mpirun', ['--version']);
  const progress = ui.progress('bench ep');
  const sizes: EpReport['sizes'] = [];
  for (const ranks of options.ranks) {
    progress.note(`${ranks} ranks on this host`);
    const tasks = options.sizes.map((bytes) => ({ kind: 'exchange' as const, what: caseOf(ranks, bytes) }));
    const results = (await runTasks(localRanks(ranks), { tasks })) as ExchangeResult[];
    sizes.push(...results.map((result, i) => ({ ranks, dispatchBytes: options.sizes[i]!, result })));
  }
  const training = options.training ? await measureOnThisHost(options.training, ui) : null;
  const linksSkipped = options.links ? (noHosts() ?? null) : 'not asked for';
  const links: LinkReport[] = [];
  const planes: PlanesReport[] = [];
  for (const rate of linksSkipped === null ? options.rates : []) {
    progress.note(`${HOSTS} hosts with links of ${rate / 1e6} MB/s`);
    links.push(await measureLinks(rate, options));
    progress.note(`hosts on two planes of ${rate / 1e6} MB/s`);
    planes.push(await measurePlanes(rate, LINK_CASE));
  }
  if (options.faults) progress.note('ranks and links that fail');
  const flips = options.faults ? measureFlips() : [];
  const faults = options.faults ? await measureFaults(linksSkipped === null) : [];
  const cuts = options.faults && linksSkipped === null ? await measureCuts() : [];
  progress.end();
  return {
    machine: describeMachine(addon, addon.info().isa),
    mpi: stdout.split('\n')[0]!,
    sizes,
    training,
    links,
    linksSkipped,
    planes,
    faults,
    cuts,
    flips,
  };
}

/** DeepSeek-V3's routing on four nodes: 8 of 64 experts, one group a node. */
const LINK_CASE: ExchangeCase = {
  tokens: 512,
  hidden: HIDDEN,
  topK: 8,
  experts: 64,
  groups: HOSTS,
  groupsPerToken: HOSTS,
  wire: 'fp8:bf16',
  rounds: 7,
  bare: true,
};
/** Hosts of one rank that train: one core each on the machine of bench/results, so that they compute at the same time. */
const TRAINING_HOSTS = 2;
const TRAINING_STEPS = 7;
const LIMITS = [4, 2, 1];
const FORMATS = ['bf16', 'fp8', 'logfmt10', 'logfmt8'];

async function measureOnThisHost(model: TrainingCase['model'], ui: Ui): Promise<EpReport['training']> {
  ui.progress('bench ep').note(`training ${model} on one rank and on two`);
  const [oneRank] = await runTraining(localRanks(1), { model, threads: 2, steps: TRAINING_STEPS });
  const [twoRanks] = await runTraining(localRanks(2), { model, threads: 1, steps: TRAINING_STEPS });
  return { model, oneRank, twoRanks };
}

const runTraining = async (mpirun: readonly string[], what: TrainingCase) =>
  (await runTasks(mpirun, { tasks: [{ kind: 'training', what }] })) as [TrainingResult];

async function measureLinks(
  bytesPerSecond: number,
  { peers, training: model }: EpOptions,
): Promise<LinkReport> {
  const hosts = makeHosts(HOSTS, bytesPerSecond);
  try {
    const limits = LIMITS.map((nodes) => ({ ...LINK_CASE, groupsPerToken: nodes }));
    const formats = FORMATS.map((combine) => ({ ...LINK_CASE, wire: `fp8:${combine}` }));
    const exchange = [...limits, ...formats].map((what) => ({ kind: 'exchange' as const, what }));
    const exchanges = (await runTasks(hosts.mpirun(PER_HOST), { tasks: exchange })) as ExchangeResult[];
    const training = model
      ? await runTraining(hosts.mpirun(1, TRAINING_HOSTS), { model, threads: 1, steps: TRAINING_STEPS })
      : [null];
    return {
      bytesPerSecond,
      hosts: HOSTS,
      ranksPerHost: PER_HOST,
      limits: LIMITS.map((nodes, i) => ({ nodes, result: exchanges[i]! })),
      formats: FORMATS.map((combine, i) => ({ combine, result: exchanges[LIMITS.length + i]! })),
      training: training[0],
      torch: peers ? await torchExchange(peers, hosts, PER_HOST, LINK_CASE) : null,
    };
  } finally {
    hosts.close();
  }
}
