import { UserError } from '../../errors.js';
import { type Network, nameOf, tailOf } from '../graph.js';
import { BUFFER, type EventQueue, NEXT, STRIDE } from './events.js';
import { FIRST, LANE, PICOSECONDS, type Ports } from './ports.js';

/**
 * Nothing moves any more and packets are on their way: finds a circle of lanes, each of whose buffers holds packets that wait
 * for the next one.
 * @param lanes of a port
 */
export function explainDeadlock(
  { network, virtualChannels }: { network: Network; virtualChannels: number },
  ports: Ports,
  queue: EventQueue,
  lanes: number,
): UserError {
  const waitsFor = new Map<number, Set<number>>();
  let packets = 0;
  for (let lane = 0; lane < 2 * network.cableCount * lanes; lane++) {
    const first = ports.lanes[lane * LANE + FIRST]!;
    for (let packet = first; packet >= 0; packet = queue.ints[packet * STRIDE + NEXT]!) {
      const buffer = queue.ints[packet * STRIDE + BUFFER]!;
      packets++;
      if (buffer >= 0) waitsFor.set(buffer, (waitsFor.get(buffer) ?? new Set()).add(lane));
    }
  }
  const circle = circleIn(waitsFor).map((lane) => nameOf(network, tailOf(network, Math.floor(lane / lanes))));
  const shown = circle.length > 8 ? [...circle.slice(0, 7), `${circle.length - 7} more`] : circle;
  const time = (queue.now / PICOSECONDS) * 1e6;
  return new UserError(
    `deadlock at ${time.toFixed(3)} µs: ${packets} packets wait for each other for ever in a circle of ${circle.length} buffers, ${shown.join(' → ')} → ${circle[0]}; ${virtualChannels} virtual channel${virtualChannels > 1 ? 's are' : ' is'} too few for these ways: set packet.virtualChannels to "auto" or more`,
  );
}

/** A circle in a graph of who waits for whom, by depth-first search; empty where there is none. */
function circleIn(waitsFor: ReadonlyMap<number, ReadonlySet<number>>): number[] {
  const finished = new Set<number>();
  for (const start of waitsFor.keys()) {
    const trail: number[] = [];
    const onTrail = new Map<number, Iterator<number>>();
    let at: number | undefined = start;
    while (at !== undefined) {
      if (onTrail.has(at)) return trail.slice(trail.indexOf(at));
      if (!finished.has(at)) {
        trail.push(at);
        onTrail.set(at, (waitsFor.get(at) ?? new Set<number>()).values());
      }
      at = nextOf(trail, onTrail, finished);
    }
  }
  return [];
}

/** The next lane to look at from the end of the trail, which is cut back where nothing is left. */
function nextOf(
  trail: number[],
  onTrail: Map<number, Iterator<number>>,
  finished: Set<number>,
): number | undefined {
  while (trail.length > 0) {
    const last = trail[trail.length - 1]!;
    const { value, done } = onTrail.get(last)!.next();
    if (!done) return value;
    finished.add(last);
    onTrail.delete(last);
    trail.pop();
  }
  return undefined;
}
