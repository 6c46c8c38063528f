import { z } from 'zod';
import { UserError } from '../errors.js';
import { faultSchema, reliabilitySchema } from './faults.js';
import { describeIssues } from './model.js';
import { fieldsOf, nearestFields } from './near-names.js';
import { networkSchema } from './network.js';
import { packetSchema } from './packet.js';
import { PRICE_BOOKS, type PriceBook, type Prices, pricesSchema } from './prices.js';

const positive = z.int().positive();
const natural = z.int().nonnegative();
const bytes = z.number().positive();
const seconds = z.number().nonnegative();

/** How flows find their way through switches [ISCA §5.2.2]. */
const routing = z.strictObject({
  /**
   * `static`: by destination alone, neighbouring destinations over different cables. `ecmp`: a hash of the flow at every
   * switch. `adaptive`: each flow at its start over the way with least traffic. `spray`: each flow over all shortest ways evenly, packet by
   * packet. `valiant`: over a random switch in between, then as `ecmp`.
   */
  mode: z.enum(['static', 'ecmp', 'adaptive', 'spray', 'valiant']).default('static'),
  /** Of hashes and random switches. */
  seed: natural.default(0),
  /**
   * Where source and destination are on different rails or planes, a flow changes over NVLink in the source's node (NCCL's
   * PXN); without it in the destination's node, or between rails through the fabric.
   */
  pxn: z.boolean().default(true),
  /**
   * From a fault or repair at a time until routes are changed, during which traffic into the fault stands still. Assumed: link
   * down is seen and hashed around in about a millisecond; a subnet manager takes seconds.
   */
  reroutingSeconds: seconds.default(1e-3),
});
export type RoutingSpec = z.infer<typeof routing>;

/** Ranks of a collective: endpoints first, first + stride, ... */
const ranks = {
  /** Default: all endpoints. */
  ranks: z.int().min(2).optional(),
  first: natural.default(0),
  stride: positive.default(1),
};

/** Of a piece against others, for the packet engine: greater is more urgent, as in Ethernet [IEEE 802.1Q]. */
const common = { priority: z.int().min(0).max(7).default(0) };

/**
 * Dispatch or combine of expert parallelism from token-to-expert choices; a token crosses to a node once and goes on over
 * NVLink [ISCA §4.3]. Choices are sampled from a gate with random scores, given, or captured from a training run.
 */
const expertTraffic = z.strictObject({
  kind: z.enum(['ep-dispatch', 'ep-combine']),
  /** Of a rank; default: 4,096, or as many as choices there are. Choices are used again where they are fewer. */
  tokens: positive.optional(),
  /** Default: the captured run's; 7168 without. */
  hidden: positive.optional(),
  /** Default: the captured run's; 256 without. */
  experts: positive.optional(),
  /** Experts of a token where choices are sampled. */
  topK: positive.default(8),
  /** Nodes that a token's experts lie on at most, where choices are sampled; default: no limit. */
  nodeLimit: positive.optional(),
  /** How values travel, by the names of `fathom numerics compare`; default: e4m3 out, bf16 back [TR §3.3.3]. */
  format: z.string().optional(),
  /** Standard deviation of the logarithm of experts' popularity; 0 is a balanced gate. */
  skew: z.number().min(0).default(0),
  /** [tokens of all ranks][topK] experts, in place of sampling. */
  choices: z.array(z.array(natural).min(1)).min(1).optional(),
  /** Choices of a run of `fathom train --capture`, in place of sampling: its folder, and which; default: the last. */
  capture: z
    .strictObject({ run: z.string().min(1), layer: natural.optional(), step: natural.optional() })
    .optional(),
  /** Copies of a token for several nodes are made in switches, or summed there [ISCA §6.5]. */
  inFabric: z.boolean().default(false),
  seed: natural.default(0),
  ...ranks,
  ...common,
});

/** One piece of traffic. `bytes` is the size that collective benchmarks print: of the whole buffer of a rank. */
const traffic = z.discriminatedUnion('kind', [
  /** Every rank sends bytes/ranks to every other; sizes vary by ±spread. */
  z.strictObject({
    kind: z.literal('all-to-all'),
    bytes,
    spread: z.number().min(0).lt(1).default(0),
    seed: natural.default(0),
    ...ranks,
    ...common,
  }),
  z.strictObject({
    kind: z.enum(['all-gather', 'reduce-scatter', 'all-reduce']),
    bytes,
    /** `ring`; `tree` and `hierarchical` (within nodes, then across) for all-reduce alone. */
    algorithm: z.enum(['ring', 'tree', 'hierarchical']).default('ring'),
    /** As many rings at a time, one for each block of this many ranks; default: one of all. */
    groupSize: z.int().min(2).optional(),
    /** Ranks of a ring are this far apart: groups lie across each other, as those of tensor parallelism across nodes. */
    groupStride: positive.default(1),
    ...ranks,
    ...common,
  }),
  /** `sources` ranks send to the first. */
  z.strictObject({
    kind: z.literal('incast'),
    bytes,
    sources: positive,
    first: natural.default(0),
    ...common,
  }),
  /** Every rank sends to another, each to one, at random. */
  z.strictObject({ kind: z.literal('permutation'), bytes, seed: natural.default(0), ...ranks, ...common }),
  /** Rank i sends to rank i + stage·stride, micro-batch after micro-batch: a pipeline's boundaries. */
  z.strictObject({
    kind: z.literal('pipeline'),
    bytes,
    microBatches: positive.default(1),
    /** Time that a stage works on a micro-batch before it sends on. */
    stageSeconds: seconds.default(0),
    ...ranks,
    ...common,
  }),
  expertTraffic,
  /** Flows one by one; `after` are their numbers in this list. */
  z.strictObject({
    kind: z.literal('flows'),
    flows: z
      .array(
        z.strictObject({
          from: natural,
          to: natural,
          bytes: z.number().nonnegative(),
          start: seconds.default(0),
          after: z.array(natural).default([]),
          weight: z.number().positive().default(1),
          capGBps: z.number().positive().optional(),
        }),
      )
      .min(1),
    ...common,
  }),
]);
export type Traffic = z.infer<typeof traffic>;
export type TrafficInput = z.input<typeof traffic>;

export const scenarioSchema = z.strictObject({
  name: z.string().min(1),
  network: networkSchema,
  routing: routing.prefault({}),
  /** Pieces that run at the same time. */
  workload: z.array(traffic).min(1).optional(),
  /** What breaks, from the beginning or at a time; traffic goes around it. */
  faults: z.array(faultSchema).default([]),
  /** Failure rates of parts and a training job's checkpoints, for `fathom network failures`. */
  reliability: reliabilitySchema.prefault({}),
  /** How packets are handled, where the packet engine runs. */
  packet: packetSchema.prefault({}),
  prices: z
    .union([z.enum(Object.keys(PRICE_BOOKS) as [PriceBook, ...PriceBook[]]), pricesSchema])
    .default('isca-2025'),
});
export type Scenario = z.infer<typeof scenarioSchema>;
export type ScenarioInput = z.input<typeof scenarioSchema>;

/**
 * @param json content of a scenario file
 * @param origin its name, for messages
 * @throws UserError naming the field
 */
export function parseScenario(json: unknown, origin: string): Scenario {
  const parsed = scenarioSchema.safeParse(json);
  if (!parsed.success) {
    const meant = nearestFields(parsed.error, fieldsOf(z.toJSONSchema(scenarioSchema, { io: 'input' })));
    throw new UserError(`${origin}: ${describeIssues(parsed.error)}${meant}`);
  }
  return parsed.data;
}

/** The prices that a scenario names or spells out. */
export const pricesOf = ({ prices }: Pick<Scenario, 'prices'>): Prices =>
  typeof prices === 'string' ? PRICE_BOOKS[prices] : prices;
