import { UserError } from '../errors.js';
import type { Scenario } from '../spec/scenario.js';
import { buildNetwork } from './build.js';
import { simulate } from './simulate.js';

/** One size of a curve, by the first piece of traffic. */
export interface CurvePoint {
  bytes: number;
  seconds: number;
  busBytesPerSecond: number;
}

/** From `from` to at most `to`, each `factor` times the one before. */
export function sizesOf(from: number, to: number, factor: number): number[] {
  const sizes: number[] = [];
  for (let size = from; size <= to; size *= factor) sizes.push(size);
  return sizes;
}

/**
 * A scenario's traffic at many sizes: all pieces that have `bytes` get them.
 * @throws UserError where none has
 */
export function curveOf(
  scenario: Scenario,
  sizes: readonly number[],
  each: () => void = () => {},
): CurvePoint[] {
  const first = scenario.workload?.[0];
  if (!first || !('bytes' in first)) {
    throw new UserError(
      `${scenario.name} has no traffic whose size can vary: its first piece must have a field "bytes", as all-to-all has`,
    );
  }
  const network = buildNetwork(scenario.network);
  return sizes.map((bytes) => {
    const workload = scenario.workload!.map((piece) => ('bytes' in piece ? { ...piece, bytes } : piece));
    const { pieces } = simulate({ ...scenario, workload }, { network });
    each();
    return { bytes, seconds: pieces[0]!.seconds, busBytesPerSecond: pieces[0]!.busBytesPerSecond };
  });
}
