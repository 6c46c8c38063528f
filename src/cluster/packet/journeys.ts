import type { RoutingSpec } from '../../spec/scenario.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, headOf, type Network, SWITCH, tailOf } from '../graph.js';
import { Router } from '../routing.js';
import type { Broken } from '../switch-routes.js';

/** Entries of a path beside channels, which are 0 and up. */
export const END = -1;
/** To the switch that the packet has drawn. */
export const DETOUR = -2;
/** Over shortest ways to a switch, each packet choosing for itself. */
export const towards = (vertex: number): number => -3 - vertex;
export const targetOf = (entry: number): number => -3 - entry;

/**
 * Ways of flows, as packets follow them. Legend: F flows, A ways of all flows together (a flow has one for each port that it may
 * leave by). A path is a list of channels, of switches to go to, or both.
 */
export interface Journeys {
  /** [F + 1] ways of each flow. */
  readonly ways: Int32Array;
  /** [A] where each begins in `path`; its first entry is a channel. */
  readonly begins: Int32Array;
  /** Paths one after the other, each up to END. */
  readonly path: Int32Array;
  /** [F] seconds of the idle way, as the flow engine counts them. */
  readonly latency: Float64Array;
}

/** A transfer as far as its way goes. */
interface Ends {
  from: number;
  to: number;
  bytes: number;
  key?: number;
}

/**
 * Gives every transfer its way. Where packets choose for themselves (`spray`, `valiant`), the fabric's part is left open.
 * @throws UserError where there is no way
 */
export function planJourneys(
  network: Network,
  routing: RoutingSpec,
  broken: Broken,
  transfers: Iterable<Ends>,
): Journeys {
  // A packet's own detour is drawn when it leaves, so that Valiant's routing needs the ends of the way only.
  const open = routing.mode === 'spray' || routing.mode === 'valiant';
  const mode = routing.mode === 'valiant' ? 'ecmp' : routing.mode;
  const router = new Router(network, { ...routing, mode }, broken);
  const ways = [0];
  const begins: number[] = [];
  const path: number[] = [];
  const latency: number[] = [];
  for (const { from, to, bytes, key } of transfers) {
    const { channels, seconds } = router.route(from, to, bytes, key);
    latency.push(seconds);
    if (channels.length > 0) {
      for (const way of open ? openWays(network, channels, routing.mode === 'valiant') : [channels]) {
        begins.push(path.length);
        path.push(...way, END);
      }
    }
    ways.push(begins.length);
  }
  return {
    ways: Int32Array.from(ways),
    begins: Int32Array.from(begins),
    path: Int32Array.from(path),
    latency: Float64Array.from(latency),
  };
}

/**
 * Takes the cables between switches out of a spread route: one way for each port up, which goes to the switch of the port
 * down in its plane.
 */
function openWays(network: Network, channels: readonly number[], detour: boolean): number[][] {
  const isPort = (c: number) => network.cableKind[c >> 1] === ENDPOINT_CABLE;
  const isUp = (c: number) => isPort(c) && network.kind[headOf(network, c)] === SWITCH;
  const ups = channels.filter(isUp);
  if (ups.length === 0) return [[...channels]];
  const fixed = channels.filter((c) => !isPort(c) && network.cableKind[c >> 1] !== FABRIC_CABLE);
  const downs = channels.filter((c) => isPort(c) && !isUp(c));
  const first = channels.indexOf(ups[0]!);
  const before = fixed.filter((c) => channels.indexOf(c) < first);
  const after = fixed.filter((c) => channels.indexOf(c) > first);
  const planeOf = (vertex: number) => network.plane[vertex]!;
  return ups.map((up) => {
    const plane = planeOf(headOf(network, up));
    const down = downs.find((c) => planeOf(tailOf(network, c)) === plane) ?? downs[0]!;
    const leaf = tailOf(network, down);
    const through = detour && leaf !== headOf(network, up) ? [DETOUR, towards(leaf)] : [towards(leaf)];
    return [...before, up, ...through, down, ...after];
  });
}
