import { dualPipe, dualPipeV } from './dualpipe.js';
import { gpipe, interleaved, oneForwardOneBackward, zeroBubbleH1 } from './orders.js';
import type { Schedule, ScheduleName } from './schedule.js';
import type { PassTimes } from './simulate.js';
import { zeroBubbleV } from './zero-bubble-v.js';

/** A schedule by name. @param chunks stages a device, of `interleaved` only */
export function makeSchedule(
  name: ScheduleName,
  devices: number,
  microBatches: number,
  chunks = 2,
): Schedule {
  switch (name) {
    case 'gpipe':
      return gpipe(devices, microBatches);
    case '1f1b':
      return oneForwardOneBackward(devices, microBatches);
    case 'interleaved':
      return interleaved(devices, microBatches, chunks);
    case 'zb-h1':
      return zeroBubbleH1(devices, microBatches);
    case 'zb-v':
      return zeroBubbleV(devices, microBatches);
    case 'dualpipe':
      return dualPipe(devices, microBatches);
    case 'dualpipe-v':
      return dualPipeV(devices, microBatches);
  }
}

/**
 * Seconds that the device with the most waiting has nothing to do, sending for free; `times` are those of one stage.
 * 1F1B, ZB1P and DualPipe: [TR §3.2 table 2]; interleaved: its own paper [arXiv 2104.04473 §2.2], stages being chunks.
 * The event simulation gives the same (test/plan/pipeline.test.ts), except that ZB-H1 waits a little longer where W fits neither
 * F nor the rest of B, and its gaps are not filled to the end. ZB-V: only for F, W and the rest of B equally long, as its paper
 * has it; what is left is the way of the first pass to the last device [arXiv 2401.10241 §6].
 */
export function bubbleSeconds(name: ScheduleName, devices: number, times: PassTimes): number {
  const { forward: F, backward: B, backwardWeights: W } = times;
  const FB = times.overlapped ?? F + B;
  switch (name) {
    case 'gpipe':
    case '1f1b':
    case 'interleaved':
      return (devices - 1) * (F + B);
    case 'zb-h1':
      return (devices - 1) * (F + B - 2 * W);
    case 'zb-v':
      return (devices - 1) * F;
    case 'dualpipe':
      return (devices / 2 - 1) * (FB + B - 3 * W);
    case 'dualpipe-v':
      return (devices - 1) * (FB + B - 3 * W);
  }
}

/**
 * How many transfers between stages lie on the longest path of a step, one after the other: what the event simulation adds for
 * each second of sending (test/plan/pipeline.test.ts), for at least four devices. ZB-V: within two of it.
 */
export function sendsInLine(name: ScheduleName, devices: number, microBatches: number): number {
  const perMicroBatch = (2 * (devices - 1) * microBatches) / devices;
  switch (name) {
    case 'gpipe':
      return 2 * (devices - 1);
    case '1f1b':
      return perMicroBatch + 2 * (devices - 2);
    case 'interleaved':
      return 4 * devices - 2;
    case 'zb-h1':
      return 4 * (devices - 1);
    case 'zb-v':
      return 4 * microBatches + 2 * (devices - 3);
    case 'dualpipe':
      return perMicroBatch / 2 + 2 * (devices - 2);
    case 'dualpipe-v':
      return perMicroBatch + 4 * devices - 6;
  }
}

/** Stage activations that the fullest device holds [TR §3.2 table 2], for as many micro-batches as the pipeline is deep or more. */
export function peakActivations(
  name: ScheduleName,
  devices: number,
  microBatches: number,
  chunks = 2,
): number {
  switch (name) {
    case 'gpipe':
      return microBatches;
    case '1f1b':
    case 'zb-h1':
      return devices;
    case 'interleaved':
      return Math.min(devices * chunks + devices - 1, microBatches * chunks);
    case 'zb-v':
      return 2 * devices;
    case 'dualpipe':
      return devices + 1;
    case 'dualpipe-v':
      return 2 * devices + 1;
  }
}

/** Copies of the parameters that a device holds, in shares of a plain pipeline's [TR §3.2 table 2]. */
export const parameterCopies = (name: ScheduleName): number => (name === 'dualpipe' ? 2 : 1);
