import type { Machine } from '../spec/machine.js';
import type { ExpertShape } from '../spec/shape.js';
import { meanNodes } from './node-limited.js';

/** Expert-parallel dispatch and combine [ISCA §4.3]. */

/** Bytes a value on the wire; narrow formats carry a scale per 128 values. */
export interface WireFormats {
  dispatchBytesPerValue: number;
  combineBytesPerValue: number;
}

/** FP8 with a four-byte scale per 128 values to the experts, BF16 back [ISCA §2.3.2, §3.2; TR §3.3.3]. */
export const FP8_WIRE: WireFormats = { dispatchBytesPerValue: 1 + 4 / 128, combineBytesPerValue: 2 };
export const BF16_WIRE: WireFormats = { dispatchBytesPerValue: 2, combineBytesPerValue: 2 };

export interface ExchangeSeconds {
  dispatch: number;
  combine: number;
}

const NONE: ExchangeSeconds = { dispatch: 0, combine: 0 };

/**
 * Exchange of training and prefill: a token crosses the network once per node that it goes to and is forwarded there, so that
 * the slower link counts tokens times nodes; within a node it counts tokens times devices.
 * @param tokens of one device
 * @param devices that the experts are spread over
 */
export function exchangeSeconds(
  m: Machine,
  experts: ExpertShape,
  hiddenSize: number,
  tokens: number,
  devices: number,
  wire: WireFormats,
): ExchangeSeconds {
  if (devices <= 1) return NONE;
  const table = m.kernels.exchange;
  if (!table) return NONE;
  const { dispatch, combine } = bandwidth(table.points, devices);
  const values = tokens * hiddenSize * meanCopies(experts, devices, m.node.devices);
  return {
    dispatch: (values * wire.dispatchBytesPerValue) / dispatch,
    combine: (values * wire.combineBytesPerValue) / combine,
  };
}

/** Copies of a token that the slower kind of link carries. */
export function meanCopies(
  experts: Pick<ExpertShape, 'routed' | 'perToken' | 'groups' | 'groupsPerToken'>,
  devices: number,
  perNode: number,
): number {
  const nodes = Math.ceil(devices / perNode);
  const places = nodes > 1 ? nodes : devices;
  // A token's groups lie on as many places at most; where a group is spread over several, it may use all of those.
  const spread = Math.ceil((places * experts.groupsPerToken) / experts.groups);
  const reachable = Math.max(spread, Math.min(places, experts.groupsPerToken));
  return meanNodes({
    routed: experts.routed,
    perToken: experts.perToken,
    groups: places,
    groupsPerToken: reachable,
  });
}

/** Exchange of decoding: every copy goes to its expert by itself, and an empty exchange takes its time too. */
export function smallExchangeSeconds(
  m: Machine,
  experts: ExpertShape,
  hiddenSize: number,
  tokens: number,
  devices: number,
  wire: WireFormats,
): ExchangeSeconds {
  const table = m.kernels.smallExchange;
  if (devices <= 1 || !table) return NONE;
  const { dispatch, combine } = bandwidth(table.points, devices);
  const values = tokens * hiddenSize * experts.perToken;
  const latency = table.latencySeconds.value;
  return {
    dispatch: latency + (values * wire.dispatchBytesPerValue) / dispatch,
    combine: latency + (values * wire.combineBytesPerValue) / combine,
  };
}

interface Point {
  devices: number;
  dispatchBytesPerSecond: number;
  combineBytesPerSecond: number;
}

/** Of the measured number of devices that is next above; beyond the table its last. */
function bandwidth(points: readonly Point[], devices: number): ExchangeSeconds {
  const found = points.find((point) => point.devices >= devices) ?? points.at(-1)!;
  return { dispatch: found.dispatchBytesPerSecond, combine: found.combineBytesPerSecond };
}
