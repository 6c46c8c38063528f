import type { ServingRanks } from '../expert/ranks.js';
import type { Engine, EngineInfo, EngineOptions, EngineStats, ExpertBalance } from '../infer/engine.js';
import { bytes } from '../report/units.js';
import { present } from './engine.js';
import { END_SIGNALS } from './interrupt.js';
import { isRank, onRank } from './ranks.js';
import type { Outcome } from './session.js';

/** Options of `addServingRankOptions`. */
export type ServingRankFlags = ServingRanks;

/** How the flags let an engine span ranks. */
const settingsOf = (flags: ServingRankFlags): ServingRanks => {
  const { expertParallel, nodesLimit, wire, ranksPerNode, checksums, lostAfter } = flags;
  const { redundantExperts, rebalanceEvery } = flags;
  const placement = { expertParallel, nodesLimit, ranksPerNode, redundantExperts, rebalanceEvery };
  return present({ ...placement, wire, checksums, lostAfter });
};

/** Opens an engine, in this thread or in one of its own; `ranks` where it spans several. */
export type OpenEngine = (
  folder: string,
  options: EngineOptions,
  ranks: ServingRanks | undefined,
) => Promise<Engine>;

/**
 * Runs `work` on an engine and closes it: on one of this process, or of all ranks of an MPI job. There rank 0 works, and the
 * others serve it until it ends.
 */
export async function onEngine(
  folder: string,
  options: EngineOptions,
  flags: ServingRankFlags,
  open: OpenEngine,
  work: (engine: Engine) => Promise<Outcome>,
): Promise<Outcome> {
  if (!(await isRank(flags))) return workAndClose(await open(folder, options, undefined), work);
  const ranks = settingsOf(flags);
  const { openRanks } = await import('../expert/ranks.js');
  return onRank(
    () => openRanks(ranks),
    async (transport) => {
      if (transport.rank === 0) return lead(await open(folder, options, ranks), work);
      await follow(transport, folder, options, ranks);
      return {};
    },
  );
}

/** The first rank in this thread. */
export const openHere: OpenEngine = async (folder, options, ranks) => {
  if (ranks) {
    const { openRanks } = await import('../expert/ranks.js');
    const { openOnRanks } = await import('../infer/open-ranks.js');
    return (await openOnRanks(openRanks(ranks), folder, options, ranks)).engine!;
  }
  const { openEngine } = await import('../infer/open-engine.js');
  return openEngine(folder, options);
};

async function workAndClose(engine: Engine, work: (engine: Engine) => Promise<Outcome>): Promise<Outcome> {
  try {
    return await work(engine);
  } finally {
    await engine.close();
  }
}

/** What fails in the work ends the engine as usual, and all ranks with it; what fails in the engine ends them at once. */
async function lead(engine: Engine, work: (engine: Engine) => Promise<Outcome>): Promise<Outcome> {
  const { agree } = await import('../expert/agreement.js');
  const death = engine.died!.then((error): never => {
    throw error;
  });
  const done = work(engine).then(
    (outcome) => ({ outcome }),
    (failure: object) => ({ failure }),
  );
  const how = await Promise.race([death, done]);
  await Promise.race([death, engine.close()]);
  if ('failure' in how) throw agree(how.failure);
  return how.outcome;
}

/** Signals are rank 0's business: it tells the others when to end. */
async function follow(
  transport: Parameters<typeof import('../infer/open-ranks.js').openOnRanks>[0],
  folder: string,
  options: EngineOptions,
  ranks: ServingRanks,
): Promise<void> {
  const { openOnRanks } = await import('../infer/open-ranks.js');
  const ignore = () => {};
  for (const signal of END_SIGNALS) process.on(signal, ignore);
  try {
    await (await openOnRanks(transport, folder, options, ranks)).ended;
  } finally {
    for (const signal of END_SIGNALS) process.off(signal, ignore);
  }
}

/** One line for people on ranks and how evenly their experts were loaded; undefined in one process. */
export function describeRanks({ ranks }: EngineInfo, { experts }: EngineStats): string | undefined {
  if (!ranks || !experts) return undefined;
  const { size, nodes, wire, weightBytes } = ranks;
  const most = Math.max(...weightBytes);
  const held = `${size} ranks on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}, ${bytes(most)} of weights each, ${wire}`;
  return `${held}; ${describeBalance(experts)}`;
}

function describeBalance({ imbalance, placements }: ExpertBalance): string {
  const now = `busiest rank ${imbalance.toFixed(2)} times the mean in rows of experts`;
  const [first] = placements;
  if (!first) return now;
  const moved = placements.reduce((sum, placement) => sum + placement.moved, 0);
  return `${now}, ${first.before.toFixed(2)} before experts were placed by load (${placements.length} times, ${moved} loaded)`;
}
