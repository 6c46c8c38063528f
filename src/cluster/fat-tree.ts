import { UserError } from '../errors.js';
import type { Wiring } from './wiring.js';

/** Parameters of one fat-tree. */
export interface FatTreeShape {
  radix: number;
  layers: 2 | 3;
  oversubscription: number;
}

/** Ports of a leaf: towards endpoints and towards the layer above. @throws UserError where they do not divide */
export function leafPorts({ radix, oversubscription }: FatTreeShape): { down: number; up: number } {
  if (radix % 2 !== 0) {
    throw new UserError(
      `field topology.radix: ${radix} is odd, and half the ports go up; give ${radix - 1} or ${radix + 1}`,
    );
  }
  const ports = radix / (1 + oversubscription);
  // Ratios such as 46/18 have no short decimals: four digits are enough.
  const up = Math.round(ports);
  if (up > 0 && Math.abs(ports - up) < 1e-3) return { down: radix - up, up };
  const nearest = [Math.floor(ports), Math.ceil(ports)].map((some) =>
    Number(((radix - some) / Math.max(1, some)).toFixed(4)),
  );
  throw new UserError(
    `field topology.oversubscription: ${oversubscription} splits ${radix} ports unevenly; the nearest are ${nearest.join(' and ')}`,
  );
}

/**
 * One fat-tree (folded Clos), as small as the slots allow: as many leaves (or pods) as they fill, and as few switches on top
 * as carry all uplinks with every leaf (or aggregation switch) joined evenly to all tops, by parallel cables where
 * there are fewer tops than uplinks.
 * @param slots endpoints to be plugged in
 * @returns [slots] the leaf of each
 * @throws UserError where the layers do not hold them
 */
export function wireFatTree(wiring: Wiring, shape: FatTreeShape, slots: number, plane: number): Int32Array {
  const { down, up } = leafPorts(shape);
  const { radix, layers } = shape;
  const most = layers === 2 ? radix * down : radix * (radix / 2) * down;
  if (slots > most) {
    const more = layers === 2 ? 'give layers 3 or more planes' : 'give a larger radix or more planes';
    throw new UserError(
      `field topology.endpoints: a fat-tree of ${layers} layers of ${radix}-port switches holds ${most}, not ${slots}; ${more}`,
    );
  }
  return layers === 2
    ? wirePod(wiring, { leaves: Math.ceil(slots / down), down, up, radix, plane }, slots)
    : wirePods(wiring, { down, up, radix, plane }, slots);
}

/** Leaves under a common layer of spines. */
function wirePod(
  wiring: Wiring,
  {
    leaves,
    down,
    up,
    radix,
    plane,
  }: { leaves: number; down: number; up: number; radix: number; plane: number },
  slots: number,
): Int32Array {
  const switches = Array.from({ length: leaves }, (_, leaf) => wiring.addSwitch({ plane, group: leaf }));
  const spines = leaves === 1 ? 0 : topsFor(leaves, up, radix);
  for (let s = 0; s < spines; s++) {
    const spine = wiring.addSwitch({ layer: 1, plane, group: s });
    for (const leaf of switches) wiring.connect(leaf, spine, up / spines);
  }
  return Int32Array.from({ length: slots }, (_, slot) => switches[Math.floor(slot / down)]!);
}

/** Pods of radix/2 leaves; aggregation switch j of every pod under the same group of cores. */
function wirePods(
  wiring: Wiring,
  { down, up, radix, plane }: { down: number; up: number; radix: number; plane: number },
  slots: number,
): Int32Array {
  const half = radix / 2;
  const pods = Math.ceil(slots / (down * half));
  const leaves: number[] = [];
  const aggregation: number[][] = [];
  for (let pod = 0; pod < pods; pod++) {
    const own = Array.from({ length: half }, () => wiring.addSwitch({ plane, group: pod }));
    aggregation.push(Array.from({ length: up }, () => wiring.addSwitch({ layer: 1, plane, group: pod })));
    for (const leaf of own) for (const above of aggregation[pod]!) wiring.connect(leaf, above);
    leaves.push(...own);
  }
  const cores = pods === 1 ? 0 : topsFor(pods, half, radix);
  for (let j = 0; j < up; j++) {
    for (let c = 0; c < cores; c++) {
      const core = wiring.addSwitch({ layer: 2, plane, group: j });
      for (const pod of aggregation) wiring.connect(pod[j]!, core, half / cores);
    }
  }
  return Int32Array.from({ length: slots }, (_, slot) => leaves[Math.floor(slot / down)]!);
}

/** The fewest switches on top that `below` switches reach evenly with `up` cables each: a divisor of `up`. */
function topsFor(below: number, up: number, radix: number): number {
  let tops = Math.ceil((below * up) / radix);
  while (up % tops !== 0) tops++;
  return tops;
}
