import { z } from 'zod';
import { UserError } from '../errors.js';
import { describeIssues } from '../spec/model.js';
import { METRIC_NAMES } from './metrics.js';

/** Becomes part of file names. */
const slug = z
  .string()
  .regex(/^[a-z0-9][a-z0-9.-]*$/, 'must be lower-case letters, digits, dots and hyphens, as in "fp8-tensor"');

/** Part of a training file; see `merge.ts` for what a patch may hold. */
const patch = z.record(z.string(), z.unknown());

const metric = z.enum(METRIC_NAMES);

/** Where a claim holds. Differences are relative to `against`, paired by seed; 0.0025 is 0.25 %. */
const rule = z.discriminatedUnion('kind', [
  /** The difference is smaller than `bound` in magnitude. */
  z.strictObject({ kind: z.literal('within'), bound: z.number().positive() }),
  /** The metric is lower than that of `against`, by more than the share `by`. */
  z.strictObject({ kind: z.literal('lower'), by: z.number().min(0).lt(1).default(0) }),
  /** The metric is higher than that of `against`, by more than the share `by`. */
  z.strictObject({ kind: z.literal('higher'), by: z.number().min(0).default(0) }),
  /** The metric itself, of `variant` alone, lies from `low` to `high`. */
  z.strictObject({ kind: z.literal('range'), low: z.number().optional(), high: z.number().optional() }),
]);

const claim = z.strictObject({
  /** What the paper says, in a sentence. */
  text: z.string().min(1),
  /** Paper and section. */
  source: z.string().min(1),
  metric,
  variant: slug,
  /** The variant that it is compared with; absent for a range. */
  against: slug.optional(),
  rule,
});

/** How a run is spread over MPI ranks of this machine; it needs `npm run build:mpi`. */
const ranks = z.strictObject({
  count: z.int().min(2),
  /** Ranks that share memory; all by default. Messages between others are in the formats of `wire`. */
  perNode: z.int().min(1).optional(),
  /** Number formats to the experts and back, DISPATCH:COMBINE. */
  wire: z.string().optional(),
});

const variant = z.strictObject({
  name: slug,
  /** What it is, for people. */
  title: z.string().min(1),
  /** What differs from the base. */
  patch: patch.default({}),
  /** One process without. */
  ranks: ranks.optional(),
});

/** A question to small models as data: what is varied, how often, and what the paper says of it. */
export const studySchema = z.strictObject({
  name: slug,
  title: z.string().min(1),
  /** What the study is to answer. */
  question: z.string().min(1),
  /** What its setting leaves open or does differently from the paper. */
  notes: z.array(z.string()).default([]),
  /** The training file that variants start from; may name a preset by `extends`. */
  base: patch,
  /** A bundled corpus. */
  corpus: z.string().optional(),
  /** Text of one's own, relative to the study's file. */
  data: z.array(z.string()).min(1).optional(),
  seeds: z.array(z.int().nonnegative()).min(1),
  variants: z.array(variant).min(2),
  /** The variant that tables compare with; the first by default. */
  baseline: slug.optional(),
  metrics: z.array(metric).min(1),
  /** A figure of two metrics against each other. */
  tradeoff: z.strictObject({ x: metric, y: metric }).optional(),
  claims: z.array(claim),
  /** Of all intervals. */
  confidence: z.number().gt(0.5).lt(1).default(0.95),
});

export type Study = z.infer<typeof studySchema>;
export type StudyVariant = z.infer<typeof variant>;
export type StudyRanks = z.infer<typeof ranks>;
export type Claim = z.infer<typeof claim>;
export type Rule = z.infer<typeof rule>;

/**
 * @param json content of a study file
 * @param origin its name, for messages
 * @throws UserError naming file and field
 */
export function parseStudy(json: unknown, origin: string): Study {
  const parsed = studySchema.safeParse(json);
  if (!parsed.success) throw new UserError(`${origin}: ${describeIssues(parsed.error)}`);
  const problem = findProblem(parsed.data);
  if (problem) throw new UserError(`${origin}: ${problem}`);
  return parsed.data;
}

/** What the shape of the fields does not say. */
function findProblem(study: Study): string | undefined {
  const names = study.variants.map(({ name }) => name);
  const twice = <T>(values: readonly T[]) => values.find((value, i) => values.indexOf(value) !== i);
  const [sameName, sameSeed] = [twice(names), twice(study.seeds)];
  if (sameName !== undefined) return `two variants are named "${sameName}"; give each a name of its own`;
  if (sameSeed !== undefined) return `seed ${sameSeed} is listed twice`;
  if (study.corpus !== undefined && study.data) return 'give corpus or data, not both';
  const seeded = study.variants.find(({ patch }) => 'seed' in patch);
  if ('seed' in study.base || seeded) return 'field seed: runs take theirs from the list "seeds"; remove it';
  return findUnknownName(study, names) ?? study.claims.map(findClaimProblem).find((found) => found);
}

function findUnknownName({ baseline, claims }: Study, names: readonly string[]): string | undefined {
  const used = [baseline, ...claims.flatMap(({ variant, against }) => [variant, against])];
  const unknown = used.find((name) => name !== undefined && !names.includes(name));
  return unknown && `there is no variant "${unknown}"; there are ${names.join(', ')}`;
}

function findClaimProblem({ rule, against, variant }: Claim, index: number): string | undefined {
  const field = `field claims.${index}`;
  if (rule.kind === 'range') {
    if (against !== undefined) return `${field}: a range looks at one variant; remove "against"`;
    return rule.low === undefined && rule.high === undefined
      ? `${field}.rule: give low, high or both`
      : undefined;
  }
  if (against === undefined) return `${field}: name in "against" the variant that it is compared with`;
  return against === variant ? `${field}: "${variant}" is compared with itself` : undefined;
}
