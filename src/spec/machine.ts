import { z } from 'zod';
import { UserError } from '../errors.js';
import { describeIssues } from './model.js';

/**
 * A machine as estimates see it: one kind of device, how many make a node, what joins them, and how fast kernels run on it.
 * Every constant is `{ value, source }`, in SI base units named by the field; a source is a paper and section, a vendor's sheet,
 * a measurement with its command, or the word `assumed`.
 */
const known = z.strictObject({ value: z.number().positive(), source: z.string().min(1) });
export type Known = z.infer<typeof known>;

const positive = z.number().positive();

/** Bytes a second over the slowest link of an exchange, by how many devices take part; ascending. */
const exchangePoints = z
  .array(
    z.strictObject({
      devices: positive,
      dispatchBytesPerSecond: positive,
      combineBytesPerSecond: positive,
    }),
  )
  .min(1);

const link = z.strictObject({
  /** One way, of one device, as its maker states it. */
  bytesPerSecond: known,
  /** What transfers reach of it. */
  effectiveBytesPerSecond: known,
  /** End to end, of a small message. */
  latencySeconds: known,
});
export type Link = z.infer<typeof link>;

/**
 * Speed of a GEMM with contraction length K: `flopsPerSecond` · K / (K + `halfDepth`), times the share of tiles that the last
 * wave fills; never faster than memory. The form is that of a pipeline with a start-up of `halfDepth`.
 */
const gemmRate = z.strictObject({ flopsPerSecond: known, halfDepth: known });
export type GemmRate = z.infer<typeof gemmRate>;

const gemmKernels = z.strictObject({ forward: gemmRate, weightGradient: gemmRate });

const attentionRates = z.strictObject({
  /** By length of the sequence, ascending. */
  points: z.array(z.strictObject({ keys: positive, flopsPerSecond: positive })).min(1),
  source: z.string().min(1),
  /** With keys of 192 and values of 128, as MLA has them, against heads of 128. */
  latentShare: known,
});

const cost = z.number().nonnegative();

/** Seconds of one operation of the engine, by what it does; measured by `fathom calibrate`. */
const opCost = z.strictObject({
  secondsPerCall: cost,
  secondsPerFlop: cost,
  /** Of a score of attention, where that is part of the operation. */
  secondsPerPair: cost,
  /** Wherever it lies. */
  secondsPerByte: cost,
  /** Times that its bytes come from beyond the nearest cache: by so much longer as the curve of reading says. */
  readings: cost,
});
export type OpCost = z.infer<typeof opCost>;

/** What reading `bytes` of memory over and over reaches: the caches show as steps. */
const readPoint = z.strictObject({ bytes: positive, bytesPerSecond: positive });
export type ReadPoint = z.infer<typeof readPoint>;

const machineSchema = z.strictObject({
  name: z.string().min(1),
  device: z.strictObject({
    memoryBytes: known,
    memoryBytesPerSecond: known,
    /** Dense peak by format; what is absent cannot be computed in. */
    peakFlopsPerSecond: z.strictObject({
      fp32: known.optional(),
      bf16: known,
      fp8: known.optional(),
    }),
    /** Streaming multiprocessors, or cores. */
    units: known,
    dollarsPerHour: known,
  }),
  node: z.strictObject({
    devices: z.int().positive(),
    /** Between the devices of a node; absent where there is one. */
    scaleUp: link.nullable(),
    /** Of one device to other nodes; absent where there are none. */
    scaleOut: link.nullable(),
  }),
  kernels: z.strictObject({
    gemm: z.strictObject({
      bf16: gemmKernels,
      fp8: gemmKernels.optional(),
      fp32: gemmKernels.optional(),
      /** Side of the tile of output that one unit computes. */
      tile: known,
    }),
    /** Training: forward and the whole backward pass, whose five products count 2.5 times the forward's two. */
    attention: z.strictObject({ forward: attentionRates, backward: attentionRates }),
    /** Attention of decoding where products bind it, and not memory. */
    decodeAttentionFlopsPerSecond: known,
    /** What kernels reach of the memory's bandwidth that read large operands: products of few rows, attention of decoding. */
    memoryShare: known,
    /** What kernels between products reach of it: casts with their scales, norms, activations, permutations. */
    elementwiseShare: known,
    /** From the start of a kernel to its first useful work. */
    launchSeconds: known,
    /** Units that serve communication while it overlaps with computation. */
    communicationUnits: z.strictObject({ value: z.number().nonnegative(), source: z.string().min(1) }),
    /** Expert-parallel exchange of large batches, bytes over the slowest link, by devices; absent without a network. */
    exchange: z
      .strictObject({
        points: exchangePoints,
        source: z.string().min(1),
      })
      .nullable(),
    /** The same of small batches, as decoding has them: bandwidth at its batch, and what an empty exchange takes. */
    smallExchange: z
      .strictObject({
        points: exchangePoints,
        source: z.string().min(1),
        latencySeconds: known,
      })
      .nullable(),
  }),
  /** Costs of the engine's own operations, where this machine runs it. */
  engine: z
    .strictObject({
      threads: z.int().positive(),
      source: z.string().min(1),
      /** Ascending sizes. */
      reading: z.array(readPoint).min(1),
      ops: z.record(z.string(), opCost),
    })
    .optional(),
});
export type Machine = z.infer<typeof machineSchema>;

/**
 * Checks a Machine file.
 * @throws UserError naming file and field, a constant that is missing among them
 */
export function parseMachine(json: unknown, source = 'machine.json'): Machine {
  const parsed = machineSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  if (issue.code === 'invalid_type' && /undefined/.test(issue.message)) {
    const what = issue.path.at(-1) === 'source' ? 'its source, or "assumed"' : 'a { value, source } there';
    throw new UserError(`${source}: the constant ${issue.path.join('.')} is missing; put ${what}`);
  }
  throw new UserError(`${source}: ${describeIssues(parsed.error)}`);
}

/** Many machines of one kind. */
export interface Cluster {
  name: string;
  machine: Machine;
  nodes: number;
}

export const devicesOf = ({ machine, nodes }: Cluster): number => machine.node.devices * nodes;

const override = z.number().positive().optional();
const clusterSchema = z.strictObject({
  name: z.string().optional(),
  machine: z.unknown(),
  nodes: z.int().positive(),
  devicesPerNode: z.int().positive().optional(),
  memoryBytes: override,
  memoryBytesPerSecond: override,
  scaleUpBytesPerSecond: override,
  scaleOutBytesPerSecond: override,
  dollarsPerDeviceHour: override,
});

/**
 * Reads a cluster file: a machine by name or in full, how many nodes, and what differs from the machine as it is known.
 * @param find a machine by its name, undefined where there is none
 * @throws UserError naming file and field
 */
export function parseCluster(json: unknown, source: string, find: (name: string) => Machine): Cluster {
  const parsed = clusterSchema.safeParse(json);
  if (!parsed.success) throw new UserError(`${source}: ${describeIssues(parsed.error)}`);
  const { machine: given, nodes, name, ...changes } = parsed.data;
  const base = typeof given === 'string' ? find(given) : parseMachine(given, `${source}, machine`);
  return { name: name ?? `${nodes} × ${base.name}`, machine: changed(base, changes, source), nodes };
}

type Changes = Omit<z.infer<typeof clusterSchema>, 'machine' | 'nodes' | 'name'>;

function changed(base: Machine, changes: Changes, source: string): Machine {
  const m = structuredClone(base);
  const set = (target: Known | undefined, value: number | undefined) => {
    if (target && value !== undefined) Object.assign(target, { value, source: `stated in ${source}` });
  };
  const scale = (target: Link | null, value: number | undefined) => {
    if (!target || value === undefined) return;
    set(
      target.effectiveBytesPerSecond,
      target.effectiveBytesPerSecond.value * (value / target.bytesPerSecond.value),
    );
    set(target.bytesPerSecond, value);
  };
  set(m.device.memoryBytes, changes.memoryBytes);
  set(m.device.memoryBytesPerSecond, changes.memoryBytesPerSecond);
  set(m.device.dollarsPerHour, changes.dollarsPerDeviceHour);
  scale(m.node.scaleUp, changes.scaleUpBytesPerSecond);
  if (changes.scaleOutBytesPerSecond && m.node.scaleOut) {
    scaleExchange(m, changes.scaleOutBytesPerSecond / m.node.scaleOut.bytesPerSecond.value);
  }
  scale(m.node.scaleOut, changes.scaleOutBytesPerSecond);
  if (changes.devicesPerNode) m.node.devices = changes.devicesPerNode;
  return m;
}

/** Lets the measured exchanges follow the bandwidth of the links that they use. */
export function scaleExchange(m: Machine, factor: number): void {
  for (const table of [m.kernels.exchange, m.kernels.smallExchange]) {
    for (const entry of table?.points ?? []) {
      entry.dispatchBytesPerSecond *= factor;
      entry.combineBytesPerSecond *= factor;
    }
  }
}
