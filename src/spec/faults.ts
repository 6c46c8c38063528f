import { z } from 'zod';

/** What breaks, when, and until when. */
export const faultSchema = z
  .strictObject({
    /**
     * `cable`: one between switches, or a NIC's; `port`: a NIC's alone; `switch`; `nic`; `node`; `plane`: all its switches.
     */
    kind: z.enum(['cable', 'port', 'switch', 'nic', 'node', 'plane']),
    /** Number of it, counted from 0 as `describe` lists them; a NIC by node·nics + place, a port by NIC·ports + plane. */
    index: z.int().nonnegative(),
    /** Seconds; without it the part is broken, and known to be, from the beginning. */
    at: z.number().nonnegative().optional(),
    /** Seconds at which it works again; without it never. */
    until: z.number().positive().optional(),
  })
  .refine(({ at = 0, until }) => until === undefined || until > at, {
    message: 'a fault ends after it begins; give a later time, or leave it out where it lasts',
    path: ['until'],
  });
export type Fault = z.infer<typeof faultSchema>;

const hours = z.number().positive();
const seconds = z.number().nonnegative();

/**
 * Mean times between failures of parts, and what a training job does about them. Rates are those of 54 days of Llama 3 on
 * 16,384 H100 [arXiv 2407.21783, table 5]: 282 interruptions by what is in a node (GPUs, memories, CPU, power, ...), 7 by NICs,
 * 35 by switches and cables, which the table does not tell apart: all are taken as cables' here, three tiers of them.
 */
export const reliabilitySchema = z.strictObject({
  /** 2,048 nodes · 54 days / 282. */
  nodeMtbfHours: hours.default(9400),
  /** 16,384 NICs · 54 days / 7. */
  nicMtbfHours: hours.default(3.03e6),
  /** 3 · 16,384 cables · 54 days / 35. */
  cableMtbfHours: hours.default(1.82e6),
  /** Assumed: vendors state 100,000 to 300,000 hours for switches of 64 ports. */
  switchMtbfHours: hours.default(200_000),
  /** Until a part is replaced; assumed. */
  repairHours: hours.default(24),
  /** To write a checkpoint, training standing still; assumed. */
  checkpointSeconds: seconds.default(10),
  /** From a failure until training goes on from the last checkpoint, on spare nodes; assumed. */
  restartSeconds: seconds.default(600),
  /** Work between checkpoints; default: the best. */
  intervalSeconds: z.number().positive().optional(),
});
export type Reliability = z.infer<typeof reliabilitySchema>;
