import { UserError } from '../errors.js';
import type { Wiring } from './wiring.js';

/** Parameters of a Dragonfly, as in the topology schema. */
export interface DragonflyShape {
  p: number;
  a: number;
  h: number;
  groups?: number | undefined;
  unbalanced?: boolean | undefined;
  radix: number;
}

/** Groups: as given, or one cable between any two [Kim et al., ISCA'08 §3.1]. */
export const dragonflyGroups = ({ a, h, groups }: DragonflyShape): number => groups ?? a * h + 1;

/**
 * Groups of `a` switches in full mesh. The a·h global ports of a group go round the other groups evenly; what is left over
 * joins groups at growing distance in number, two ports of each group at a time.
 * @returns the switch of each endpoint
 */
export function wireDragonfly(wiring: Wiring, shape: DragonflyShape): Int32Array {
  const { p, a, h } = shape;
  const groups = dragonflyGroups(shape);
  checkShape(shape, groups);
  const switches = Array.from({ length: groups * a }, (_, i) =>
    wiring.addSwitch({ group: Math.floor(i / a) }),
  );
  for (let g = 0; g < groups; g++) {
    for (let i = 0; i < a; i++)
      for (let j = i + 1; j < a; j++) wiring.connect(switches[g * a + i]!, switches[g * a + j]!);
  }
  // Global ports of a group in use so far; port n belongs to switch n mod a, so that switches fill evenly.
  const used = new Int32Array(groups);
  const port = (g: number) => switches[g * a + (used[g]!++ % a)]!;
  for (const [g, other] of globalPairs(groups, a * h)) wiring.connect(port(g), port(other));
  return Int32Array.from({ length: switches.length * p }, (_, i) => switches[Math.floor(i / p)]!);
}

function checkShape({ p, a, h, radix, unbalanced = false }: DragonflyShape, groups: number): void {
  const ports = p + a - 1 + h;
  if (ports > radix) {
    throw new UserError(
      `field topology: p + a - 1 + h = ${ports} ports a switch, and it has ${radix}; balanced is a = 2p = 2h, here p = h = ${Math.floor((radix + 1) / 4)}`,
    );
  }
  if (!unbalanced && (a !== 2 * p || a !== 2 * h)) {
    const near = Math.max(1, Math.round(a / 2));
    throw new UserError(
      `field topology: p = ${p}, a = ${a}, h = ${h} is not balanced, which is a = 2p = 2h; the nearest is p = ${near}, a = ${2 * near}, h = ${near}, or set "unbalanced": true`,
    );
  }
  if (groups > a * h + 1) {
    throw new UserError(
      `field topology.groups: ${a} switches with ${h} global ports reach ${a * h} other groups, so give ${a * h + 1} groups or fewer, not ${groups}`,
    );
  }
}

/** Pairs of groups to be joined, each as often as its share of `ports` per group. */
function* globalPairs(groups: number, ports: number): Generator<[number, number]> {
  const rounds = Math.floor(ports / (groups - 1));
  for (let round = 0; round < rounds; round++) {
    for (let g = 0; g < groups; g++) for (let other = g + 1; other < groups; other++) yield [g, other];
  }
  let left = ports % (groups - 1);
  for (let distance = 1; left >= 2; distance++, left -= 2) {
    for (let g = 0; g < groups; g++) yield [g, (g + distance) % groups];
  }
  if (left === 1 && groups % 2 === 0) {
    for (let g = 0; g < groups / 2; g++) yield [g, g + groups / 2];
  }
}
