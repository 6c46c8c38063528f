/** A study made ready to run: every variant's training file in full. */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { UserError } from '../errors.js';
import type { ModelConfig } from '../spec/model.js';
import { type CorpusSource, corpusDigest } from '../text/corpus.js';
import { recipeOf, type TrainConfig } from '../train/config.js';
import { checkedConfig } from '../train/run-file.js';
import { applyPatch, type Json } from './merge.js';
import type { Study, StudyRanks, StudyVariant } from './schema.js';

export interface PlannedVariant {
  name: string;
  /** Content of its training file; runs add their seed. */
  json: Json;
  config: TrainConfig;
  model: ModelConfig;
  ranks: StudyRanks | undefined;
}

export interface StudyPlan {
  study: Study;
  source: CorpusSource;
  variants: PlannedVariant[];
  /** SHA-256 of all that decides the runs: variants and text, but not seeds, claims and titles. */
  digest: string;
}

/** What the command line changes of a study. */
export interface Overrides {
  seeds?: number[];
  steps?: number;
}

/**
 * @param file where the study was read, for messages and as the place that `data` starts from
 * @throws UserError where a variant is no valid training file, or equals another
 */
export function planStudy(given: Study, file: string, { seeds, steps }: Overrides = {}): StudyPlan {
  const base = steps === undefined ? given.base : { ...given.base, steps };
  const study = { ...given, base, ...(seeds ? { seeds } : {}) };
  const source = sourceOf(study, file);
  const variants = study.variants.map((variant) => planVariant(study, variant, file));
  const identities = variants.map(identity);
  const equal = identities.findIndex((text, i) => identities.indexOf(text) < i);
  if (equal >= 0) {
    const first = variants[identities.indexOf(identities[equal]!)]!;
    throw new UserError(
      `${file}: variants "${first.name}" and "${variants[equal]!.name}" are equal; change the patch or the ranks of one, or remove it`,
    );
  }
  const parts = [corpusDigest(source), ...variants.map(({ name }, i) => `${name} ${identities[i]}`)];
  const digest = createHash('sha256').update(parts.join('\n')).digest('hex');
  return { study, source, variants, digest };
}

const sourceOf = ({ corpus, data }: Study, file: string): CorpusSource =>
  data ? { paths: data.map((name) => path.resolve(path.dirname(file), name)) } : { corpus: corpus ?? 'sotu' };

function planVariant({ base }: Study, { name, patch, ranks }: StudyVariant, file: string): PlannedVariant {
  const origin = `${file}, variant ${name}`;
  const json = nameRecipe(applyPatch(applyPatch({}, base, `${file}, base`), patch, origin), patch, name);
  return { name, json, ranks, ...checkedConfig(json, origin) };
}

/** A recipe that a variant has changed is no longer the preset whose name it bears. */
function nameRecipe(json: Json, patch: Json, variant: string): Json {
  const changed = typeof patch.precision === 'object' && !Object.hasOwn(patch.precision ?? {}, 'name');
  return changed ? { ...json, precision: { ...(json.precision as Json), name: variant } } : json;
}

/** A variant's settings with all defaults and without names, as text: equal where the runs would be. */
function identity({ config, model, ranks }: PlannedVariant): string {
  const { name: _, ...recipe } = recipeOf(config);
  return JSON.stringify({ ...config, seed: 0, precision: recipe, model, ranks });
}
