import { simulate } from '../cluster/simulate.js';
import { UserError } from '../errors.js';
import type { Cluster, Link, Machine } from '../spec/machine.js';
import type { NetworkInput } from '../spec/network.js';
import { parseScenario, type TrafficInput } from '../spec/scenario.js';
import type { ModelShape } from '../spec/shape.js';
import { collectiveSeconds, GRADIENT_BYTES, type Replicated, replicatedParameters } from './data-parallel.js';
import { exchangeSeconds } from './exchange.js';
import { cutStages } from './stages.js';
import { stageRanks, type TrainPlan, wireOf } from './train-plan.js';

/**
 * The communication of a plan twice: by the closed formulas that estimates use, and flow by flow on a network whose links have the
 * machine's nominal rates and the share of them that transfers reach.
 */
export interface NetworkCheck {
  name: string;
  /** Bytes that a device brings in. */
  bytes: number;
  formulaSeconds: number;
  flowSeconds: number;
}

/** A NIC of every node on each plane, on each rail, or all on one tree. */
export type NetworkKind = 'multi-plane-fat-tree' | 'multi-rail-fat-tree' | 'fat-tree';

/** Tokens a device that are routed one by one: enough for even loads; times are scaled to all. */
const SAMPLED_TOKENS = 512;

/** @throws UserError where the machine has no network, or a part of the plan is no whole number of nodes */
export function checkNetwork(
  shape: ModelShape,
  cluster: Cluster,
  plan: TrainPlan,
  kind: NetworkKind,
): NetworkCheck[] {
  const run = (devices: number, workload: TrafficInput[]): number => {
    const network = networkOf(cluster.machine, kind, devices);
    return simulate(parseScenario({ name: kind, network, workload }, kind)).seconds;
  };
  return [...exchanges(shape, cluster.machine, plan, run), ...reductions(shape, cluster.machine, plan, run)];
}

type Run = (devices: number, workload: TrafficInput[]) => number;

/** Dispatch and combine of one micro-batch in one layer. */
function exchanges(shape: ModelShape, m: Machine, plan: TrainPlan, run: Run): NetworkCheck[] {
  const { experts, hiddenSize } = shape;
  if (!experts || plan.expert === 1) return [];
  const tokens = (plan.microBatch * plan.length) / plan.tensor / plan.context;
  const sampled = Math.min(tokens, SAMPLED_TOKENS);
  const wire = wireOf(plan.format);
  const formula = exchangeSeconds(m, experts, hiddenSize, tokens, plan.expert, wire);
  const formats = plan.format === 'fp8' ? ['e4m3', 'bf16'] : ['bf16', 'bf16'];
  const nodes = Math.ceil(plan.expert / m.node.devices);
  const limit = plan.nodeLimit ?? experts.groupsPerToken;
  return (['dispatch', 'combine'] as const).map((name, i) => {
    const traffic: TrafficInput = {
      kind: `ep-${name}`,
      tokens: sampled,
      hidden: hiddenSize,
      experts: experts.routed,
      topK: experts.perToken,
      format: formats[i],
      ...(limit < nodes ? { nodeLimit: limit } : {}),
    };
    const perValue = i === 0 ? wire.dispatchBytesPerValue : wire.combineBytesPerValue;
    return {
      name: `${name}, ${Math.round(tokens)} tokens, EP ${plan.expert}`,
      bytes: tokens * hiddenSize * perValue,
      formulaSeconds: formula[name],
      flowSeconds: run(plan.expert, [traffic]) * (tokens / sampled),
    };
  });
}

/** Gradients at the end of a step, of the stage with the most parameters: within nodes and across them at once. */
function reductions(shape: ModelShape, m: Machine, plan: TrainPlan, run: Run): NetworkCheck[] {
  const names = ['gradients of dense parts', 'gradients of experts'];
  const strides = [plan.tensor, plan.expert];
  const ranks = stageRanks(plan);
  return replicatedParameters(m, plan, cutStages(shape, m, plan)).flatMap((group, i) => {
    // Under DualPipe a second stage holds the same parameters; the ranks of one are simulated.
    const replicas = Math.min(group.replicas, Math.floor(ranks / strides[i]!));
    if (group.parameters === 0 || replicas <= 1) return [];
    const one = { ...group, replicas };
    const bytes = group.parameters * GRADIENT_BYTES;
    return {
      name: `${names[i]}, ${replicas} replicas`,
      bytes,
      formulaSeconds: collectiveSeconds(m, bytes, one),
      flowSeconds: run(ranks, reduceScatter(bytes, one, strides[i]!)),
    };
  });
}

function reduceScatter(bytes: number, { replicas, perNode }: Replicated, stride: number): TrafficInput[] {
  const inside = Math.min(perNode, replicas);
  const outside = Math.ceil(replicas / inside);
  const kind = 'reduce-scatter' as const;
  return [
    ...(inside > 1 ? [{ kind, bytes, groupSize: inside, groupStride: stride }] : []),
    ...(outside > 1
      ? [{ kind, bytes: bytes / inside, groupSize: outside, groupStride: stride * inside }]
      : []),
  ];
}

/** Nodes of the machine on a network of this kind. */
function networkOf({ name, node }: Machine, kind: NetworkKind, devices: number): NetworkInput {
  const { scaleUp, scaleOut } = node;
  if (!scaleUp || !scaleOut) throw new UserError(`${name} has no network between nodes to simulate`);
  if (devices % node.devices !== 0)
    throw new UserError(
      `${devices} devices that exchange are no whole number of nodes of ${node.devices}; --network simulates whole nodes`,
    );
  const planes = kind === 'multi-plane-fat-tree' ? { planes: node.devices } : {};
  const rails = kind === 'multi-rail-fat-tree' ? { rails: node.devices } : {};
  return {
    topology: { kind, endpoints: devices, ...planes, ...rails } as NetworkInput['topology'],
    node: {
      gpus: node.devices,
      nics: node.devices,
      nvlinkGBps: scaleUp.bytesPerSecond.value / 1e9,
      nvlinkEfficiency: shareOf(scaleUp),
      // A NIC is taken to be fed as fast as it sends.
      pcieGBps: Math.max(63, scaleOut.bytesPerSecond.value / 1e9),
    },
    endpointGbps: (8 * scaleOut.bytesPerSecond.value) / 1e9,
    fabricGbps: (8 * scaleOut.bytesPerSecond.value) / 1e9,
    payloadShare: shareOf(scaleOut),
  };
}

const shareOf = ({ bytesPerSecond, effectiveBytesPerSecond }: Link): number =>
  Math.min(1, effectiveBytesPerSecond.value / bytesPerSecond.value);
