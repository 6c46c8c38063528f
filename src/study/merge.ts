/**
 * Training files put together from a base and patches.
 *
 * A patch is a part of a training file. Objects merge field by field, everything else replaces; null is a value. The
 * key "*" patches every field that is an object, before the fields that are named. At the top, in `model` and in
 * `precision`, `"extends": NAME` begins with the preset of that name; a preset that the base names is spelled out when a
 * patch goes into it.
 */
import { UserError } from '../errors.js';
import { RECIPES } from '../spec/precision.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { TRAIN_PRESETS, trainSchema } from '../train/config.js';

export type Json = Record<string, unknown>;

/** Fields that may name a preset, or patch one. */
const PRESETS: Record<string, Record<string, unknown>> = { model: MODEL_PRESETS, precision: RECIPES };

/** What a training file means that names no precision, spelled out so that a patch can go into it. */
const DEFAULTS: Json = { precision: trainSchema.shape.precision.parse(undefined) };

/**
 * @param base the training file so far
 * @param origin where the patch comes from, for messages
 * @throws UserError for a preset that is unknown
 */
export function applyPatch(base: Json, { extends: preset, ...patch }: Json, origin: string): Json {
  const start = { ...DEFAULTS, ...(preset === undefined ? base : named(TRAIN_PRESETS, preset, origin)) };
  for (const [field, presets] of Object.entries(PRESETS)) {
    const value = patch[field];
    if (!isObject(value)) continue;
    const { extends: name = start[field], ...fields } = value;
    start[field] = typeof name === 'string' ? named(presets, name, `${origin}, ${field}`) : name;
    patch[field] = fields;
  }
  return merge(start, patch);
}

function named(presets: Record<string, unknown>, name: unknown, where: string): Json {
  if (typeof name === 'string' && Object.hasOwn(presets, name)) return presets[name] as Json;
  const known = Object.keys(presets).join(', ');
  throw new UserError(`${where}: unknown preset ${JSON.stringify(name)}; known are ${known}`);
}

/** `base` with `patch` merged in; neither is changed. */
export function merge(base: Json, { '*': all, ...patch }: Json): Json {
  const start = isObject(all) ? mapObjects(base, (value) => merge(value, all)) : base;
  const merged = Object.entries(patch).map(([key, value]) => {
    const current = Object.hasOwn(start, key) ? start[key] : undefined;
    return [key, isObject(value) ? merge(isObject(current) ? current : {}, value) : value];
  });
  return { ...start, ...Object.fromEntries(merged) };
}

const mapObjects = (json: Json, change: (value: Json) => Json): Json =>
  Object.fromEntries(
    Object.entries(json).map(([key, value]) => [key, isObject(value) ? change(value) : value]),
  );

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
