import { createHash } from 'node:crypto';
import path from 'node:path';
import { UserError } from '../errors.js';
import { type ServingRanks, threadsOfRank } from '../expert/ranks.js';
import { Team, type TeamSettings } from '../expert/team.js';
import { nodesOf, type Transport } from '../expert/transport/transport.js';
import { parseWire, wireName } from '../expert/wire/format.js';
import { readJsonFile } from '../files.js';
import { type Checkpoint, readCheckpoint } from '../model/checkpoint.js';
import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import { MOST_BEHIND } from './behind.js';
import { storedFormat } from './checkpoint-weights.js';
import type { Engine, EngineInfo, EngineOptions } from './engine.js';
import { EngineHost } from './engine-host.js';
import type { FromEngine, ToEngine } from './engine-messages.js';
import type { LocalEngine } from './local-engine.js';
import { LockstepRunner } from './lockstep.js';
import { assembleEngine, type EngineParts, engineParts, MAX_BATCH, PREFILL_TOKENS } from './open-engine.js';
import { runnerOf, weightSource } from './open-runner.js';
import { RankLoop } from './rank-loop.js';
import { RemoteEngine } from './remote-engine.js';
import { partsOf, Sharding } from './sharding.js';
import { SpreadEngine } from './spread-engine.js';

/** One rank's end of an engine over ranks. */
export interface OnRank {
  /** On rank 0: the engine of all. */
  engine: Engine | undefined;
  /** Done when the engine is closed. Rejects with what ends all ranks; on rank 0 the engine's `died` tells. */
  ended: Promise<void>;
}

/** What a rank has found out by itself before ranks agree. */
interface Found {
  checkpoint: Checkpoint;
  parts: EngineParts;
  settings: TeamSettings;
}

/**
 * Opens a model over the ranks of an MPI job; collective. Every rank has a whole engine for its share of the requests, with all
 * weights but those of experts, of which it has its share; tokens travel to experts and back.
 * @throws on rank 0 UserError, on others ReportedError
 */
export async function openOnRanks(
  transport: Transport,
  folder: string,
  options: EngineOptions,
  ranks: ServingRanks,
): Promise<OnRank> {
  // Messages between ranks need a team, whose shape needs the model: until it is known, experts lie anyhow.
  const alone = { expertParallel: 1, wire: parseWire('fp32') };
  const provisional = new Team(transport, alone, { n_routed_experts: 1 });
  const found = await provisional.together(() => prepare(transport, folder, options, ranks));
  await provisional.agreeOn('the model or an option', JSON.stringify([found.parts.config, options, ranks]));
  await provisional.agreeOn('the checkpoint', digestOf(found.checkpoint));
  const team = await provisional.together(() => new Team(transport, found.settings, found.parts.config));
  const { local, runner, loop, take } = await open(team, found, options, ranks);
  const info = infoOf(team, local.info);
  const ended = loop.run(local, runner).finally(() => found.checkpoint.close());
  if (team.leads) return { engine: spread(team, info, local, loop, ended, take), ended };
  const host = new EngineHost(local, (message) => loop.post(0, message));
  take.message = (message) => host.take(message as ToEngine);
  return { engine: undefined, ended };
}

function prepare(transport: Transport, folder: string, options: EngineOptions, ranks: ServingRanks): Found {
  const { size } = transport.placement;
  const expertParallel = ranks.expertParallel ?? size;
  const { redundantExperts, checksums } = ranks;
  const config = configOf(transport, folder, expertParallel, ranks);
  const checkpoint = readCheckpoint(folder);
  const format = options.weights ?? storedFormat(checkpoint);
  const wire = parseWire(ranks.wire ?? (format === 'fp32' ? 'fp32' : 'bf16'));
  const share = (whole: number | undefined) => whole && Math.ceil(whole / size);
  const own = {
    ...options,
    maxBatch: share(options.maxBatch ?? MAX_BATCH)!,
    threads: options.threads ?? threadsOfRank(transport),
    ...(options.cacheTokens
      ? { cacheTokens: Math.max(share(options.cacheTokens)!, options.contextTokens ?? 1) }
      : {}),
  };
  const parts = engineParts(folder, own, config);
  return { checkpoint, parts, settings: { expertParallel, wire, checksums, redundantExperts } };
}

/** The model's description, with another limit of nodes where one is asked for. */
function configOf(
  { placement }: Transport,
  folder: string,
  expertParallel: number,
  { nodesLimit, redundantExperts = 0 }: ServingRanks,
): ModelConfig {
  const file = path.join(folder, 'config.json');
  const json = readJsonFile(file) as object;
  const nodes = Math.max(1, expertParallel / placement.perNode);
  if (nodesLimit !== undefined && nodesLimit > nodes)
    throw new UserError(`--nodes-limit ${nodesLimit} exceeds the ${nodes} nodes that the experts are on`);
  const limited = nodesLimit === undefined ? json : { ...json, n_group: nodes, topk_group: nodesLimit };
  const config = parseModelConfig(limited, file);
  if (nodesLimit !== undefined && config.topk_method === 'greedy')
    throw new UserError(
      `${file}: a router of topk_method greedy knows no groups of experts; leave --nodes-limit out`,
    );
  if (redundantExperts > config.n_routed_experts * (expertParallel - 1))
    throw new UserError(
      `--redundant-experts ${redundantExperts} is more than a copy of each of ${config.n_routed_experts} experts on every rank; take fewer`,
    );
  if (redundantExperts > 0 && nodes > 1 && placement.perNode === 1 && partsOf(config, nodes) > 1)
    throw new UserError(
      `experts of a group stay on its node, and nodes of one rank have no other for --redundant-experts ${redundantExperts}; ` +
        'start several ranks a host, or leave it out',
    );
  return config;
}

/** What tells checkpoints apart without reading them: names, types and sizes of all tensors, and where texts begin. */
function digestOf(checkpoint: Checkpoint): string {
  const tensors = [...checkpoint.stored.values()].map(({ name, dtype, bytes }) => [name, dtype, bytes]);
  const sample = new Float32Array(checkpoint.config.hidden_size * Math.min(64, checkpoint.config.vocab_size));
  checkpoint.readRange('model.embed_tokens.weight', 0, sample);
  const hash = createHash('sha256').update(new Uint8Array(sample.buffer));
  return hash.update(JSON.stringify(tensors.sort())).digest('hex');
}

/** Where messages for this rank go, once somebody takes them. */
interface Taking {
  message: (message: ToEngine | FromEngine, from: number) => Promise<void> | undefined;
}

/** Loads this rank's weights and makes its engine. */
async function open(
  team: Team,
  { checkpoint, parts }: Found,
  options: EngineOptions,
  { rebalanceEvery }: ServingRanks,
): Promise<{ local: LocalEngine; runner: LockstepRunner; loop: RankLoop; take: Taking }> {
  const { config, backend, sizes, runnerOptions } = parts;
  const behind = runnerOptions.speculative ? MOST_BEHIND + 1 : 0;
  const tokens = PREFILL_TOKENS + sizes.maxBatch * (1 + behind);
  const channel = await team.together(() => team.openChannel(config, backend, tokens, 'f32'));
  return team.together(() => {
    const own = { ...options, ...runnerOptions };
    const source = weightSource(checkpoint, backend, own, config);
    const sharding = new Sharding(team, channel, source, rebalanceEvery);
    const runner = new LockstepRunner(runnerOf(source, backend, own, sharding), team, sharding);
    const take: Taking = { message: () => undefined };
    const loop = new RankLoop(team, (message, from) => take.message(message, from));
    const steps = { untilIdle: () => loop.untilIdle(), expertRows: () => sharding.computed };
    return { local: assembleEngine(parts, runner, steps), runner, loop, take };
  });
}

/** The engine of all ranks, as rank 0's user has it. */
function spread(
  team: Team,
  info: EngineInfo,
  local: LocalEngine,
  loop: RankLoop,
  ended: Promise<void>,
  take: Taking,
): Engine {
  const remotes = Array.from({ length: team.size - 1 }, (_, i) => {
    return new RemoteEngine(info, (message) => loop.post(i + 1, message));
  });
  take.message = (message, from) => {
    remotes[from - 1]!.take(message as FromEngine);
    return undefined;
  };
  const died = new Promise<Error>((resolve) => {
    ended.catch((error: Error) => {
      resolve(error);
      local.core.fail(error);
      for (const remote of remotes) remote.fail(error);
    });
  });
  const end = () => {
    loop.end();
    return ended;
  };
  return new SpreadEngine(info, [local, ...remotes], end, died);
}

/** Of the engine of all ranks; collective. */
function infoOf(team: Team, own: EngineInfo): EngineInfo {
  const every = team.gather(new Uint8Array(Float64Array.of(own.weightBytes).buffer));
  const weightBytes = every.map((bytes) => new Float64Array(bytes.slice().buffer)[0]!);
  const { expertParallel, wire, redundantExperts = 0 } = team.settings;
  return {
    ...own,
    weightBytes: weightBytes.reduce((a, b) => a + b, 0),
    cacheTokens: own.cacheTokens * team.size,
    ranks: {
      size: team.size,
      nodes: nodesOf(team.transport.placement),
      expertParallel,
      wire: wireName(wire),
      redundantExperts,
      weightBytes,
    },
  };
}
