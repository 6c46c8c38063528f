/**
 * Pipeline schedules as data: which device does which work in which order. Times come from `simulate.ts`.
 *
 * A micro-batch travels along a route: the devices that hold its stages, in order. 1F1B has the route 0…P−1; an
 * interleaved schedule passes every device several times; in a V the route comes back; DualPipe has two routes, one
 * from each end [TR §3.2.1].
 */

/**
 * Parts of a stage's work on one micro-batch. `F` forward; `B` the whole backward pass; `I` its half for the inputs and `W`
 * its half for the weights, which may wait [arXiv 2401.10241 §2].
 */
export type PassKind = 'F' | 'B' | 'I' | 'W';

export interface Pass {
  kind: PassKind;
  microBatch: number;
  /** Position on the route of the micro-batch. */
  stage: number;
}

/** One pass, or a forward and a backward pass whose computation and communication overlap [TR §3.2.1]. */
export type Work = readonly [Pass] | readonly [Pass, Pass];

export interface Schedule {
  name: ScheduleName;
  /** P. */
  devices: number;
  /** Devices of the stages, one list per route. */
  routes: readonly (readonly number[])[];
  /** Route of each micro-batch. */
  routeOf: readonly number[];
  /** What each device does, in order. */
  orders: readonly (readonly Work[])[];
}

export const SCHEDULE_NAMES = [
  'gpipe',
  '1f1b',
  'interleaved',
  'zb-h1',
  'zb-v',
  'dualpipe',
  'dualpipe-v',
] as const;
export type ScheduleName = (typeof SCHEDULE_NAMES)[number];
