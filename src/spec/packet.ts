import { z } from 'zod';

const bytes = z.int().positive();
const seconds = z.number().positive();

/**
 * DCQCN [Zhu et al., SIGCOMM'15, figure 14 and §4]: switches mark, receivers notify, senders cut their rate and
 * recover. The paper's thresholds and steps are for 40 Gb/s; they grow with the link's rate here.
 */
const dcqcn = z.strictObject({
  /** Marking begins at this queue, at 40 Gb/s: K_min. */
  minQueueBytes: bytes.default(5_000),
  /** From here on every packet is marked: K_max. */
  maxQueueBytes: bytes.default(200_000),
  /** Share of packets marked just below K_max: P_max. */
  maxMarkShare: z.number().positive().max(1).default(0.01),
  /** A receiver notifies a flow's sender this often at most: N. */
  notifySeconds: seconds.default(50e-6),
  /** Gain of the congestion estimate: g. */
  gain: z
    .number()
    .positive()
    .max(1)
    .default(1 / 256),
  /** Between steps of recovery, and of the estimate's decay. */
  stepSeconds: seconds.default(55e-6),
  /** A step as well after this many bytes: B. */
  stepBytes: bytes.default(10_000_000),
  /** Steps of fast recovery, which halve the gap: F. */
  fastSteps: z.int().positive().default(5),
  /** Added in a step afterwards, at 40 Gb/s: R_AI. */
  increaseMbps: z.number().positive().default(40),
  /** No flow is cut below. Assumed. */
  leastMbps: z.number().positive().default(100),
});

/** Control by round-trip times [Swift: Kumar et al., SIGCOMM'20, algorithm 1]. */
const rtt = z.strictObject({
  /** Delay aimed at beyond that of the idle way: base target without scaling. Assumed: 10 packets of 4 KiB at 50 GB/s, rounded up. */
  targetSeconds: seconds.default(1e-6),
  /** Packets added to the window in a round trip below the target: ai. */
  increasePackets: z.number().positive().default(1),
  /** Cut of the window for delay beyond the target: beta. */
  decrease: z.number().positive().max(1).default(0.8),
  /** The most that is cut at once: max_mdf. */
  mostDecrease: z.number().positive().lt(1).default(0.5),
});

/** What the packet engine needs to know beyond the network: `packet` in a scenario. */
export const packetSchema = z.strictObject({
  /** Payload of a full packet; InfiniBand's and RoCE's largest. */
  mtuBytes: z.int().min(64).max(65536).default(4096),
  /**
   * `credits`: a sender knows the room behind the cable (InfiniBand). `pfc`: it is told to pause and to go on [IEEE
   * 802.1Qbb]. Both lose nothing.
   */
  flowControl: z.enum(['credits', 'pfc']).default('credits'),
  congestionControl: z.enum(['none', 'dcqcn', 'rtt']).default('none'),
  /**
   * Room of an input port and virtual lane, beside what a part's own latency holds. With PFC this is where pausing begins; what
   * still comes then has room on top. Assumed.
   */
  bufferBytes: bytes.max(2 ** 28).default(131_072),
  /** With PFC, a paused sender goes on when this much has left the full buffer. */
  resumeBytes: bytes.default(8_192),
  /**
   * Virtual channels of a priority. `auto`: as many as keep the routes from waiting for each other in a circle; fewer may
   * deadlock, which is found and told.
   */
  virtualChannels: z.union([z.literal('auto'), z.int().min(1).max(15)]).default('auto'),
  /** `voq`: packets wait by output; `input`: in one line per input and lane, so that the first holds up the rest. */
  queueing: z.enum(['voq', 'input']).default('voq'),
  switching: z.enum(['cut-through', 'store-and-forward']).default('cut-through'),
  /** With routing `spray`: a way at random, or the one whose queue is shortest, packet by packet. */
  spray: z.enum(['random', 'least-queued']).default('random'),
  /** With routing `valiant`: every packet over a random switch, or only where the shortest way's queue is longer (UGAL). */
  detour: z.enum(['always', 'ugal']).default('always'),
  /** `strict`: the highest priority first. A list: shares of a busy link, from the highest priority that is in use down. */
  priorities: z.union([z.literal('strict'), z.array(z.int().positive()).min(1)]).default('strict'),
  /** Of the cable, after forward error correction; the link sends damaged packets again. */
  bitErrorRate: z.number().min(0).max(1e-3).default(0),
  /** Of choices, errors and marks. */
  seed: z.int().nonnegative().default(0),
  /** A packet that has waited longer in a switch is reported as starved. Assumed: about 100 times a full buffer's time. */
  starvationSeconds: seconds.default(1e-3),
  dcqcn: dcqcn.prefault({}),
  rtt: rtt.prefault({}),
});
export type PacketSpec = z.infer<typeof packetSchema>;
export type PacketInput = z.input<typeof packetSchema>;
