import type { Transport } from '../expert/transport/transport.js';
import type { Link } from '../spec/machine.js';
import { lowerQuartile } from './measure.js';

/** What joins ranks, measured over MPI: messages that go to a neighbour and come back. */
export interface Links {
  /** Ranks of a host. */
  perHost: number;
  /** Between ranks of one host; null where each has one. */
  scaleUp: Link | null;
  /** Between hosts; null where there is one. */
  scaleOut: Link | null;
}

const SMALL_BYTES = 64;
const LARGE_BYTES = 2 ** 24;
const [SMALL_ROUNDS, LARGE_ROUNDS] = [500, 9];
const TAG = 71;

/** Collective. @param source of the constants */
export function measureLinks(transport: Transport, source: string): Links {
  const { hosts, size } = transport.placement;
  const perHost = hosts.filter((host) => host === hosts[0]).length;
  const to = (peer: number | undefined) => (peer === undefined ? null : linkTo(transport, peer, source));
  return {
    perHost,
    scaleUp: to(perHost > 1 ? 1 : undefined),
    scaleOut: to(perHost < size ? perHost : undefined),
  };
}

/** Between rank 0 and `peer`; the others wait. */
function linkTo(transport: Transport, peer: number, source: string): Link {
  const small = halfTrip(transport, peer, SMALL_BYTES, SMALL_ROUNDS);
  const large = halfTrip(transport, peer, LARGE_BYTES, LARGE_ROUNDS);
  const rate = LARGE_BYTES / Math.max(large - small, 1e-9);
  const known = (value: number) => ({ value, source });
  return {
    bytesPerSecond: known(rate),
    effectiveBytesPerSecond: known(rate),
    latencySeconds: known(small),
  };
}

/** Lower quartile of one way, seconds, on all ranks: now and then a rank sleeps until it is woken. */
function halfTrip(transport: Transport, peer: number, bytes: number, rounds: number): number {
  const { rank, world } = transport;
  const data = new Uint8Array(bytes);
  const seconds: number[] = [];
  world.barrier().wait();
  // The first rounds fill caches and connect.
  for (let round = -2; round < rounds; round++) {
    const started = performance.now();
    if (rank === 0) transport.send(data, peer, TAG).wait();
    if (rank === 0) transport.receive(data, peer, TAG).wait();
    if (rank === peer) transport.receive(data, 0, TAG).wait();
    if (rank === peer) transport.send(data, 0, TAG).wait();
    if (round >= 0) seconds.push((performance.now() - started) / 2e3);
  }
  const own = Float64Array.of(rank === 0 ? lowerQuartile(seconds) : 0);
  world.broadcast(own, 0).wait();
  return own[0]!;
}
