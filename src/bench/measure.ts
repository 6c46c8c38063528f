/** Timing of repeated work: medians, because other programs share the machine. */

export interface Timing {
  /** Seconds of one run. */
  median: number;
  fastest: number;
  slowest: number;
  /** Measurements; each is the mean of as many runs as take a few milliseconds. */
  repeats: number;
}

/** A measurement lasts at least this long, so that the clock and the call into the addon do not count. */
const MIN_SECONDS = 0.005;
const WARM_UP_RUNS = 2;

/** Seconds since some moment. */
export type Clock = () => number;

export const wallClock: Clock = () => performance.now() / 1000;

/** Processor time of this process: what one thread takes of a core, whatever else runs there. */
export const cpuClock: Clock = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

/** One thread is timed by what it takes of a core, whatever else runs there; several only by the clock on the wall. */
export const clockOf = (threads: number): Clock => (threads === 1 ? cpuClock : wallClock);

/** Seconds that `run` takes, once. */
export function secondsOf(run: () => void, clock: Clock = wallClock): number {
  const started = clock();
  run();
  return clock() - started;
}

/** Measures `run` after warming up. */
export function measure(run: () => void, repeats = 9, clock: Clock = wallClock): Timing {
  const warm = Array.from({ length: WARM_UP_RUNS }, () => secondsOf(run));
  const runs = Math.max(1, Math.ceil(MIN_SECONDS / Math.min(...warm)));
  const seconds = Array.from({ length: repeats }, () => secondsOf(() => times(runs, run), clock) / runs);
  return summarise(seconds);
}

/** @param seconds at least one measurement */
export function summarise(seconds: readonly number[]): Timing {
  return {
    median: median(seconds),
    fastest: Math.min(...seconds),
    slowest: Math.max(...seconds),
    repeats: seconds.length,
  };
}

/** The middle value, or the mean of the two middle ones; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** What work takes that other programs disturb little: the value that a quarter of all do not exceed. */
export function lowerQuartile(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 4)]!;
}

function times(count: number, run: () => void): void {
  for (let i = 0; i < count; i++) run();
}
