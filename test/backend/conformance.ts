import { describe, it } from 'vitest';
import type { Backend } from '../../src/tensor/backend.js';
import { attentionOps } from './conformance/attention.js';
import { endOps } from './conformance/ends.js';
import { type Case, check, type Rule } from './conformance/harness.js';
import { latentOps } from './conformance/latents.js';
import { linearOps } from './conformance/linear.js';
import { moeOps } from './conformance/moe.js';
import { rowOps } from './conformance/rows.js';
import { samplingOps } from './conformance/sampling.js';
import { storedOps } from './conformance/stored.js';

/** What to leave out, by op, with the reason, which is printed. */
export type ConformanceOptions = { skip?: Partial<Record<keyof Backend, string>> };

/** The tests by op; made once for all backends. */
let suite: Map<string, (Case | Rule)[]> | undefined;

function collect(): Map<string, (Case | Rule)[]> {
  const byOp = new Map<string, (Case | Rule)[]>();
  for (const family of [linearOps, rowOps, attentionOps, latentOps, moeOps, endOps, samplingOps, storedOps]) {
    for (const test of family()) byOp.set(test.op, [...(byOp.get(test.op) ?? []), test]);
  }
  return byOp;
}

/**
 * The conformance suite of the op contract: every op, on many shapes and types, against the reference backend on the
 * same inputs. Exact where the formats leave no choice, within the rounding errors of FP32 and of the output's
 * format elsewhere; and the same bits when run twice.
 */
export function conformance(name: string, backend: Backend, options: ConformanceOptions = {}): void {
  suite ??= collect();
  describe(`op contract: ${name}`, () => {
    for (const [op, tests] of suite!) {
      const reason = options.skip?.[op as keyof Backend];
      if (reason) it.skip(`${op} (${reason})`, () => {});
      else describe(op, () => register(backend, tests));
    }
  });
}

function register(backend: Backend, tests: (Case | Rule)[]): void {
  for (const test of tests) {
    it(test.name, () => ('verify' in test ? test.verify(backend) : check(backend, test)));
  }
}
