import type { LaunchedTransport } from '../expert/planes/open.js';
import { ranksBeside, type Transport } from '../expert/transport/transport.js';
import { meanCopies } from '../plan/exchange.js';
import type { Link, Machine } from '../spec/machine.js';
import { measureExchange } from './ep/exchange.js';
import { lowerQuartile } from './measure.js';

/** What joins ranks, measured over MPI: messages that go to a neighbour and come back. */
export interface Links {
  /** Ranks of a host. */
  perHost: number;
  /** Between ranks of one host; null where each has one. */
  scaleUp: Link | null;
  /** Between hosts; null where there is one. */
  scaleOut: Link | null;
  /** Dispatch and combine over all ranks. */
  exchange: NonNullable<Machine['kernels']['exchange']>;
}

/** Rows of `mini` and `small` in kind: 4 of 8 experts a rank, BF16 both ways. */
const EXCHANGE = { tokens: 1024, hidden: 512, topK: 4, wire: 'bf16:bf16', rounds: 9, bare: false } as const;
const EXPERTS_PER_RANK = 8;

/** Bytes a second of dispatch and of combine, copies of tokens for a rank's own experts counted as estimates count them. */
function exchangeRate(transport: LaunchedTransport, perHost: number): number {
  const { size } = transport.placement;
  const experts = EXPERTS_PER_RANK * size;
  const groups = { groups: size, groupsPerToken: size };
  const { seconds } = measureExchange(transport, { ...EXCHANGE, ...groups, experts }, 0);
  const shape = { routed: experts, perToken: EXCHANGE.topK, groups: 1, groupsPerToken: 1 };
  const copies = meanCopies(shape, size, perHost);
  return (2 * 2 * EXCHANGE.tokens * EXCHANGE.hidden * copies) / seconds;
}

const SMALL_BYTES = 64;
const LARGE_BYTES = 2 ** 24;
const [SMALL_ROUNDS, LARGE_ROUNDS] = [500, 9];
const TAG = 71;

/** Collective. @param source of the constants */
export function measureLinks(transport: LaunchedTransport, source: string): Links {
  const { size } = transport.placement;
  const perHost = ranksBeside(transport.placement, 0);
  const to = (peer: number | undefined) => (peer === undefined ? null : linkTo(transport, peer, source));
  const rate = exchangeRate(transport, perHost);
  const point = { devices: size, dispatchBytesPerSecond: rate, combineBytesPerSecond: rate };
  return {
    perHost,
    exchange: { points: [point], source },
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
