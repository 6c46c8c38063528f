import type { InferModel } from '../spec/presets.js';
import {
  API_TARGET,
  BEST_PREFILL_TARGET,
  FIRST_TOKEN_TARGET,
  FLOOR_TARGET,
  MEASURES,
  MEMORY_TARGET_BYTES,
  type MeasureName,
  NEIGHBOUR_TARGET,
  NODE_TARGET,
  TARGETS,
} from './infer-cases.js';
import type { ContestantResult, FormatResult } from './infer-contest.js';

/** A figure against what the project asks for. */
export interface Check {
  name: string;
  value: number;
  target: number;
  met: boolean;
}

const atLeast = (name: string, value: number, target: number): Check => ({
  name,
  value,
  target,
  met: value >= target,
});
const atMost = (name: string, value: number, target: number): Check => ({
  name,
  value,
  target,
  met: value <= target,
});

/** The fastest of llama.cpp's settings at a measure, tokens/s. */
export function bestLlama({ contestants }: FormatResult, measure: MeasureName): number | undefined {
  const speeds = Object.entries(contestants).flatMap(([name, result]) =>
    name.startsWith('llama') ? [speedOf(result, measure) ?? 0] : [],
  );
  return speeds.length > 0 ? Math.max(...speeds) : undefined;
}

export const speedOf = (result: ContestantResult | undefined, measure: MeasureName): number | undefined =>
  result?.measures[measure]?.tokensPerSecond;

/** Share of the floor that decoding at short context reaches: active bytes over read bandwidth. */
export function shareOfFloor(format: FormatResult, readBandwidth: number): number | undefined {
  const speed = speedOf(format.contestants.runner, 'short');
  return speed === undefined ? undefined : (speed * format.activeBytes) / readBandwidth;
}

/** All figures of a run that have a target. */
export function inferChecks(
  model: InferModel,
  formats: readonly FormatResult[],
  readBandwidth: number,
): Check[] {
  const bestPrefill = Math.max(...formats.map((format) => bestLlama(format, 'prefill') ?? 0));
  return formats.flatMap((format) => [
    ...peerChecks(model, format, bestPrefill),
    ...ownChecks(format, readBandwidth),
  ]);
}

function peerChecks(model: InferModel, format: FormatResult, bestPrefill: number): Check[] {
  const { format: name, contestants } = format;
  const checks = Object.entries(TARGETS[model][name] ?? {}).flatMap(([measure, target]) => {
    const [ours, theirs] = [
      speedOf(contestants.runner, measure as MeasureName),
      bestLlama(format, measure as MeasureName),
    ];
    const title = `${name}: ${MEASURES[measure as MeasureName].name} over the C API`;
    return ours && theirs ? [atLeast(title, ours / theirs, target)] : [];
  });
  const prefill = speedOf(contestants.runner, 'prefill');
  if (name === '8 bits' && prefill && bestPrefill > 0) {
    checks.push(atLeast('8 bits: prefill over its best type', prefill / bestPrefill, BEST_PREFILL_TARGET));
  }
  const [engine, node] = [speedOf(contestants.engine, 'short'), speedOf(contestants.node, 'short')];
  if (engine && node)
    checks.push(atLeast(`${name}: decode, our API over node-llama-cpp`, engine / node, NODE_TARGET));
  return checks;
}

function ownChecks(format: FormatResult, readBandwidth: number): Check[] {
  const { format: name, contestants, weightBytes, cacheBytes } = format;
  const { runner, engine } = contestants;
  const [bare, api] = [speedOf(runner, 'short'), speedOf(engine, 'short')];
  const share = shareOfFloor(format, readBandwidth);
  const checks: Check[] = [];
  if (share !== undefined && name !== 'BF16')
    checks.push(atLeast(`${name}: decode, share of the floor`, share, FLOOR_TARGET));
  if (bare && api) checks.push(atLeast(`${name}: our API over the bare loop`, api / bare, API_TARGET));
  if (runner) {
    const beyond = runner.residentBytes - weightBytes - cacheBytes;
    checks.push(atMost(`${name}: resident bytes beyond weights and cache`, beyond, MEMORY_TARGET_BYTES));
  }
  if (name === '8 bits') {
    checks.push(
      atMost(`${name}: seconds from command to first token`, format.firstTokenSeconds, FIRST_TOKEN_TARGET),
    );
  }
  if (runner?.besideNeighbour !== undefined && bare) {
    checks.push(
      atLeast(`${name}: decode beside a neighbour`, runner.besideNeighbour / bare, NEIGHBOUR_TARGET),
    );
  }
  return checks;
}
