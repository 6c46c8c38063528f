import { z } from 'zod';
import { UserError } from '../errors.js';
import { type Figure, figure, type Reproduction } from './row.js';

/** Reports of `fathom study`, as far as the paper's claims are concerned; the rest of a report is let through. */
const interval = z.looseObject({ mean: z.number(), low: z.number().nullable(), high: z.number().nullable() });

const summary = z.looseObject({
  study: z.looseObject({ name: z.string(), title: z.string() }),
  claims: z.array(
    z.looseObject({
      text: z.string(),
      source: z.string(),
      verdict: z.enum(['confirmed', 'refuted', 'undecided']),
      interval: interval.nullable(),
      rule: z.looseObject({ kind: z.string(), bound: z.number().optional() }),
      metric: z.string(),
      against: z.string().optional(),
    }),
  ),
  variants: z.array(
    z.looseObject({
      name: z.string(),
      metrics: z.record(z.string(), z.looseObject({ mean: interval }).optional()),
    }),
  ),
});
export type StudySummary = z.infer<typeof summary>;

/** @throws UserError where a file is no report of a study */
export function parseStudy(json: unknown, source: string): StudySummary {
  const parsed = summary.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new UserError(`${source} is no report of a study; write it with "fathom study report --json"`);
}

/** §3.1 and §3.2, and whatever else studies were made of: every claim with its verdict at the scale of the study. */
export function studyClaims(studies: readonly StudySummary[]): Reproduction {
  const figures = studies.flatMap(({ study, claims }) =>
    claims.map(({ text, source, verdict, interval: found, rule, against }): Figure => {
      const name = `${study.name}: ${text.replace(/\.$/, '')} ${source}: ${verdict} at this scale`;
      const share = against !== undefined;
      const ours = found === null ? Number.NaN : found.mean * (share ? 100 : 1);
      const row = figure(name, share ? '%' : '', null, ours);
      return rule.kind === 'within' && rule.bound !== undefined
        ? { ...row, cause: `the paper's bound is ±${100 * rule.bound} %` }
        : row;
    }),
  );
  return {
    source: 'ISCA §3.1, §3.2',
    title: 'Numeric formats and attention, from committed studies',
    figures,
    notes:
      figures.length === 0
        ? ['no report of a study is committed']
        : [
            'relative differences, paired by seed; a verdict holds for the small models that were trained here',
          ],
  };
}
