import { UserError } from '../errors.js';
import { createField, primePower } from './galois.js';
import type { Wiring } from './wiring.js';

/** Parameters of a Slim Fly, as in the topology schema. */
export interface SlimFlyShape {
  q: number;
  endpointsPerSwitch?: number | undefined;
  radix: number;
}

/** Network ports of a switch, (3q - δ)/2 with q = 4w + δ [Besta and Hoefler, SC'14 §II-B2]. */
export const slimFlyDegree = (q: number): number => (3 * q - deltaOf(q)) / 2;

/** Endpoints on a switch: as given, or half the network ports rounded up, which keeps full global bandwidth (§II-B2). */
export const slimFlyEndpoints = ({ q, endpointsPerSwitch }: SlimFlyShape): number =>
  endpointsPerSwitch ?? Math.ceil(slimFlyDegree(q) / 2);

const deltaOf = (q: number): number => (q % 4 === 3 ? -1 : q % 4);

/** Whether an MMS graph of order q exists. */
export const isSlimFlyOrder = (q: number): boolean => primePower(q) !== undefined && q % 4 !== 2 && q > 2;

/** The nearest orders below and above one that is none. */
export function nearestOrders(q: number): number[] {
  let [below, above] = [q - 1, q + 1];
  while (below > 3 && !isSlimFlyOrder(below)) below--;
  while (!isSlimFlyOrder(above)) above++;
  return [below, above];
}

/** The largest order whose switches have so many ports, or fewer endpoints of the same. */
function slimFlyRemedy(q: number, radix: number): string {
  let fits = q;
  while (
    fits > 3 &&
    !(isSlimFlyOrder(fits) && slimFlyDegree(fits) + slimFlyEndpoints({ q: fits, radix }) <= radix)
  ) {
    fits--;
  }
  const left = radix - slimFlyDegree(q);
  return `the largest order that fits is ${fits}${left > 0 ? `, or give ${left} endpoints a switch` : ''}`;
}

/**
 * The McKay-Miller-Širáň graph of diameter two: switches (0, x, y) and (1, m, c) over GF(q); (0, x, y) ~ (0, x, y') where
 * y - y' is in X, (1, m, c) ~ (1, m, c') where c - c' is in X', (0, x, y) ~ (1, m, c) where y = mx + c.
 * @returns the switch of each endpoint
 */
export function wireSlimFly(wiring: Wiring, shape: SlimFlyShape): Int32Array {
  const { q, radix } = shape;
  if (!isSlimFlyOrder(q)) {
    throw new UserError(
      `field topology.q: no Slim Fly has order ${q}, which is no prime power 4w - 1, 4w or 4w + 1; the nearest are ${nearestOrders(q).join(' and ')}`,
    );
  }
  const perSwitch = slimFlyEndpoints(shape);
  const ports = slimFlyDegree(q) + perSwitch;
  if (ports > radix) {
    throw new UserError(
      `field topology.q: order ${q} with ${perSwitch} endpoints a switch needs ${ports} ports, and a switch has ${radix}; ${slimFlyRemedy(q, radix)}`,
    );
  }
  const switches = Array.from({ length: 2 * q * q }, (_, i) =>
    wiring.addSwitch({ group: Math.floor(i / q) }),
  );
  connectMms(q, (a, b) => wiring.connect(switches[a]!, switches[b]!));
  return Int32Array.from(
    { length: switches.length * perSwitch },
    (_, i) => switches[Math.floor(i / perSwitch)]!,
  );
}

/** Calls `connect` for each edge; switch (s, x, y) is number (s·q + x)·q + y. */
function connectMms(q: number, connect: (a: number, b: number) => void): void {
  const { add, multiply, primitive } = createField(q);
  const powers = [1];
  for (let i = 1; i < q - 1; i++) powers.push(multiply(powers[i - 1]!, primitive));
  const generators = generatorSets(q);
  for (const side of [0, 1]) {
    const set = generators[side]!.map((exponent) => powers[exponent % (q - 1)]!);
    for (let x = 0; x < q; x++) {
      for (let y = 0; y < q; y++) {
        for (const step of set) {
          const other = add(y, step);
          if (y < other) connect((side * q + x) * q + y, (side * q + x) * q + other);
        }
      }
    }
  }
  for (let m = 0; m < q; m++)
    for (let c = 0; c < q; c++)
      for (let x = 0; x < q; x++) connect(x * q + add(multiply(m, x), c), (q + m) * q + c);
}

/** Exponents of the primitive element in X and X' [Hafner 2004; SC'14 §II-B1 for δ = 1]. */
function generatorSets(q: number): [number[], number[]] {
  const everySecond = (from: number, to: number) =>
    Array.from({ length: Math.floor((to - from) / 2) + 1 }, (_, i) => from + 2 * i);
  if (deltaOf(q) === 1) return [everySecond(0, q - 3), everySecond(1, q - 2)];
  if (deltaOf(q) === 0) return [everySecond(0, q - 2), everySecond(1, q - 1)];
  const w = (q + 1) / 4;
  return [
    [...everySecond(0, 2 * w - 2), ...everySecond(2 * w - 1, 4 * w - 3)],
    [...everySecond(1, 2 * w - 1), ...everySecond(2 * w, 4 * w - 2)],
  ];
}
