/** What a run of packets begins with. */
import { Random } from '../../numerics/random.js';
import type { PacketSpec } from '../../spec/packet.js';
import type { Network } from '../graph.js';
import { Caps, type Control, Dcqcn, RoundTrips } from './congestion.js';
import type { EventQueue } from './events.js';
import { PICOSECONDS } from './ports.js';
import type { PacketFlows } from './sources.js';

/** Slots of the wheel: at most 512 KiB of it, which stays in a core's second-level cache. */
const LEAST_SLOTS = 1024;
const MOST_SLOTS = 65536;

/**
 * A wheel that reaches as far as events usually do, one cable on, with an event or two in a slot where that is possible.
 * @returns picoseconds of a slot, slots
 */
export function wheelFor(
  network: Network,
  { bytes, priorities }: Pick<PacketFlows, 'bytes' | 'priorities'>,
  mtuBytes: number,
): [number, number] {
  let reach = 1;
  let least = Infinity;
  for (let e = 0; e < network.cableCount; e++) {
    const serial = (mtuBytes / network.bytesPerSecond[e]!) * PICOSECONDS;
    const ends = [network.from[e]!, network.to[e]!].map((v) => network.vertexSeconds[v]!);
    const delay = (network.cableSeconds[e]! + Math.max(...ends)) * PICOSECONDS;
    reach = Math.max(reach, delay + 6 * serial);
    least = Math.min(least, serial);
  }
  const busy = Math.max(1, Math.min(2 * network.cableCount, 4 * Math.min(bytes.length, priorities.length)));
  const slots = Math.min(MOST_SLOTS, Math.max(LEAST_SLOTS, powerOfTwo((reach / least) * busy)));
  return [powerOfTwo(Math.max(1, reach / slots)), slots];
}

const powerOfTwo = (least: number): number => 2 ** Math.ceil(Math.log2(least));

/** Whether a packet's time at a busy port with one lane is settled when it comes: no pause, no line of inputs, no mark by queue. */
export const mayRunAhead = ({ flowControl, queueing, congestionControl }: PacketSpec): boolean =>
  flowControl === 'credits' && queueing === 'voq' && congestionControl !== 'dcqcn';

/** Who decides when flows may send; null where they always may. */
export function controlOf(
  queue: EventQueue,
  network: Network,
  flows: PacketFlows,
  spec: PacketSpec,
): Control | null {
  if (spec.congestionControl === 'none') return flows.caps ? new Caps(queue, flows.caps) : null;
  const { ways, begins, path } = flows.journeys;
  const lineRates = Float64Array.from({ length: flows.count }, (_, f) => {
    let rate = 0;
    for (let way = ways[f]!; way < ways[f + 1]!; way++) {
      rate += network.bytesPerSecond[path[begins[way]!]! >> 1]!;
    }
    return rate;
  });
  if (spec.congestionControl === 'dcqcn') {
    return new Dcqcn(queue, flows, spec, lineRates, Random.stream(spec.seed, 'marks'));
  }
  return new RoundTrips(queue, flows, spec, lineRates, spec.mtuBytes);
}

/** Flows that wait for each flow; null where none waits. */
export function followersOf({
  after,
  count,
}: PacketFlows): { offsets: Int32Array; flows: Int32Array } | null {
  if (!after) return null;
  const offsets = new Int32Array(count + 1);
  for (const flow of after.flows) offsets[flow + 1]!++;
  for (let flow = 0; flow < count; flow++) offsets[flow + 1]! += offsets[flow]!;
  const next = offsets.slice();
  const flows = new Int32Array(after.flows.length);
  for (let flow = 0; flow < count; flow++) {
    for (let i = after.offsets[flow]!; i < after.offsets[flow + 1]!; i++) {
      flows[next[after.flows[i]!]!++] = flow;
    }
  }
  return { offsets, flows };
}

/**
 * Flows in the order in which those of one time begin: each source some way into its list, the further the later it comes
 * among sources, so that not all begin with the same destination. Collective libraries stagger all-to-alls like that.
 * @param first flows that wait for nobody
 */
export function staggered(
  first: Iterable<number>,
  { ways, begins, path }: PacketFlows['journeys'],
): number[] {
  const bySource = new Map<number, number[]>();
  for (const flow of first) {
    const source = ways[flow]! < ways[flow + 1]! ? path[begins[ways[flow]!]!]! : -1;
    const list = bySource.get(source);
    if (list) list.push(flow);
    else bySource.set(source, [flow]);
  }
  return [...bySource.values()].flatMap((list, i) => {
    const begin = Math.ceil((i * list.length) / bySource.size);
    return [...list.slice(begin), ...list.slice(0, begin)];
  });
}
