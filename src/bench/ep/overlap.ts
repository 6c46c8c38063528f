import type { MpiTransport } from '../../expert/transport/mpi.js';
import { Trip } from '../../expert/trip.js';
import { type ExchangeCase, ExchangeWork, slowest } from './exchange.js';

/** Two micro-batches: their exchanges alone, their computation alone, one after the other, and overlapped; seconds of a step. */
export interface OverlapResult {
  exchangeSeconds: number;
  computeSeconds: number;
  serialSeconds: number;
  overlappedSeconds: number;
}

/** Elements that the stand-in for computation works on: more than a core's first cache, less than its second. */
const ELEMENTS = 1 << 17;

/** @param computeSeconds of one micro-batch, half before and half after its tokens are away */
export function measureOverlap(transport: MpiTransport, what: ExchangeCase, id: number): OverlapResult {
  const works = [new ExchangeWork(transport, what, id), new ExchangeWork(transport, what, id + 1)] as const;
  for (const work of works) work.round();
  const exchangeSeconds = slowest(transport, what.rounds, () => {
    for (const work of works) work.round();
  });
  const compute = computation(exchangeSeconds / works.length);
  const computeSeconds = slowest(transport, what.rounds, () => {
    for (const _ of works) {
      compute();
      compute();
    }
  });
  const serialSeconds = slowest(transport, what.rounds, () => {
    for (const work of works) {
      compute();
      work.round();
      compute();
    }
  });
  const overlappedSeconds = slowest(transport, what.rounds, () => interleave(works, compute));
  return { exchangeSeconds, computeSeconds, serialSeconds, overlappedSeconds };
}

/** While one micro-batch computes, the other's messages fly. */
function interleave(works: readonly [ExchangeWork, ExchangeWork], compute: () => void): void {
  const trips = works.map((work) => {
    compute();
    const trip = new Trip(work.channel, work.sent);
    trip.sendTokens(work.x);
    return trip;
  });
  works.forEach((work, i) => {
    const rows = work.rowsOf(trips[i]!.awaitRows());
    trips[i]!.receiveRows(rows);
    compute();
    trips[i]!.sendResults(rows, true);
  });
  for (const [i, work] of works.entries()) trips[i]!.receiveResults(work.y);
}

/** Arithmetic that takes about half of `seconds` each time. */
function computation(seconds: number): () => void {
  const values = new Float32Array(ELEMENTS).fill(1);
  const pass = () => {
    for (let i = 0; i < ELEMENTS; i++) values[i] = values[i]! * 0.999 + 0.001;
  };
  for (let i = 0; i < 20; i++) pass();
  const started = performance.now();
  for (let i = 0; i < 50; i++) pass();
  const passes = Math.max(1, Math.round(seconds / 2 / ((performance.now() - started) / 50 / 1000)));
  return () => {
    for (let i = 0; i < passes; i++) pass();
  };
}
