import { UserError } from '../../errors.js';
import type { PassKind, Schedule, Work } from './schedule.js';

/** Schedules with one route: GPipe, 1F1B, interleaved 1F1B and ZB-H1. P devices, M micro-batches. */

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

const one = (kind: PassKind, microBatch: number, stage: number): Work => [{ kind, microBatch, stage }];

/** @throws UserError where there are too few */
export function checkCounts(name: string, devices: number, microBatches: number, least = 1): void {
  if (devices >= 1 && microBatches >= least) return;
  throw new UserError(
    `${name} on ${devices} devices needs at least ${least} micro-batches, not ${microBatches}; raise the batch`,
  );
}

/** All forward passes, then all backward passes [arXiv 1811.06965]. */
export function gpipe(devices: number, microBatches: number): Schedule {
  checkCounts('gpipe', devices, microBatches);
  const orders = range(devices).map((d) => [
    ...range(microBatches).map((m) => one('F', m, d)),
    ...range(microBatches).map((m) => one('B', m, d)),
  ]);
  return straight('gpipe', devices, microBatches, orders);
}

/** One forward, one backward: device d runs P−1−d micro-batches ahead [arXiv 2104.04473 §2.2]. */
export function oneForwardOneBackward(devices: number, microBatches: number): Schedule {
  checkCounts('1f1b', devices, microBatches);
  const orders = range(devices).map((d) => {
    const ahead = Math.min(devices - 1 - d, microBatches);
    return [
      ...range(ahead).map((m) => one('F', m, d)),
      ...range(microBatches - ahead).flatMap((m) => [one('F', m + ahead, d), one('B', m, d)]),
      ...range(ahead).map((m) => one('B', microBatches - ahead + m, d)),
    ];
  });
  return straight('1f1b', devices, microBatches, orders);
}

/**
 * Interleaved 1F1B with `chunks` stages a device, in groups of P micro-batches [arXiv 2104.04473 §2.2].
 * @throws UserError where P does not divide the micro-batches
 */
export function interleaved(devices: number, microBatches: number, chunks: number): Schedule {
  checkCounts('interleaved', devices, microBatches);
  if (microBatches % devices !== 0) {
    throw new UserError(
      `interleaved needs micro-batches (${microBatches}) in multiples of the ${devices} devices; ` +
        `take ${Math.ceil(microBatches / devices) * devices}`,
    );
  }
  const count = microBatches * chunks;
  const micro = (k: number) => Math.floor(k / (devices * chunks)) * devices + (k % devices);
  const chunk = (k: number) => Math.floor((k % (devices * chunks)) / devices);
  const orders = range(devices).map((d) => {
    const F = (k: number) => one('F', micro(k), chunk(k) * devices + d);
    const B = (k: number) => one('B', micro(k), (chunks - 1 - chunk(k)) * devices + d);
    const ahead = Math.min((devices - d - 1) * 2 + (chunks - 1) * devices, count);
    return [
      ...range(ahead).map(F),
      ...range(count - ahead).flatMap((k) => [F(k + ahead), B(k)]),
      ...range(ahead).map((k) => B(count - ahead + k)),
    ];
  });
  const route = range(devices * chunks).map((stage) => stage % devices);
  return { name: 'interleaved', devices, routes: [route], routeOf: range(microBatches).map(() => 0), orders };
}

/**
 * ZB-H1, "ZB1P" in the report: 1F1B whose backward pass is split; device d keeps d weight gradients back and does them
 * while it would wait [arXiv 2401.10241 §2.1]. Activations as in 1F1B.
 */
export function zeroBubbleH1(devices: number, microBatches: number): Schedule {
  checkCounts('zb-h1', devices, microBatches, devices);
  const orders = range(devices).map((d) => {
    const ahead = devices - 1 - d;
    const order: Work[] = range(ahead).map((m) => one('F', m, d));
    let weights = 0;
    for (let m = 0; m < microBatches; m++) {
      if (m + ahead < microBatches) order.push(one('F', m + ahead, d));
      order.push(one('I', m, d));
      if (m - weights >= d) order.push(one('W', weights++, d));
    }
    while (weights < microBatches) order.push(one('W', weights++, d));
    return order;
  });
  return straight('zb-h1', devices, microBatches, orders);
}

/** A schedule with the route 0…P−1. */
function straight(name: Schedule['name'], devices: number, microBatches: number, orders: Work[][]): Schedule {
  return { name, devices, routes: [range(devices)], routeOf: range(microBatches).map(() => 0), orders };
}
