import { describe } from 'vitest';
import type { Backend } from '../../src/tensor/backend.js';
import { attentionOps } from './conformance/attention.js';
import { endOps } from './conformance/ends.js';
import { linearOps } from './conformance/linear.js';
import { moeOps } from './conformance/moe.js';
import { rowOps } from './conformance/rows.js';

const FAMILIES = { linear: linearOps, rows: rowOps, attention: attentionOps, moe: moeOps, ends: endOps };

/** What to leave out, with the reason, which is printed. */
export type ConformanceOptions = { skip?: Partial<Record<keyof typeof FAMILIES, string>> };

/**
 * The conformance suite of the op contract: every op, on many shapes and types, against the reference backend on the
 * same inputs. Exact where the formats leave no choice, within the rounding errors of FP32 and of the output's
 * format elsewhere; and the same bits when run twice.
 */
export function conformance(name: string, backend: Backend, options: ConformanceOptions = {}): void {
  describe(`op contract: ${name}`, () => {
    for (const [family, register] of Object.entries(FAMILIES)) {
      const reason = options.skip?.[family as keyof typeof FAMILIES];
      if (reason) describe.skip(`${family} (${reason})`, () => register(backend));
      else describe(family, () => register(backend));
    }
  });
}
