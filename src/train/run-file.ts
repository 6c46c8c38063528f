import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { UsageError, UserError } from '../errors.js';
import { makeFolder, readJsonFile, writeFileAtomicallySync, writeFully } from '../files.js';
import { checkTiles, type ModelConfig, parseModelConfig } from '../spec/model.js';
import { MODEL_PRESETS, type ModelPreset } from '../spec/presets.js';
import { corpusFiles } from '../text/corpus.js';
import { parseTrainConfig, recipeOf, TRAIN_PRESETS, type TrainConfig } from './config.js';
import { listStates } from './state.js';

/** What `fathom train` is asked for. */
export interface RunOptions {
  /** Name of a training preset; `mini` where neither preset nor file is given. */
  preset?: string;
  /** A training file, instead of a preset. */
  configFile?: string;
  /** Name of a bundled corpus, or paths of text; `sotu` where neither is given. */
  corpus?: string;
  data?: string[];
  /** Folder with a tokenizer.json to use instead of training one. */
  tokenizer?: string;
  /** Where token files are kept, for runs that share a corpus; `OUT/data` if absent. */
  dataCache?: string;
  /** Where everything goes. */
  out: string;
  steps?: number;
  precision?: string;
  backend?: 'native' | 'reference' | 'auto';
  seed?: number;
  threads?: number;
  /** Steps after which this process stops, the run saved. */
  stopAfter?: number;
  /** Go on with the run in `out`. */
  resume?: boolean;
  /** Keep tensors of the last step of this process in `OUT/capture`. */
  capture?: boolean;
  /** Keep those of every so many steps too. */
  captureEvery?: number;
  /** Check products of one step in so many by checksums. */
  verifyEvery?: number;
  /** Groups of experts, and groups that a token may go to, in place of the model's: one group for each node [ISCA §4.3]. */
  routing?: { groups: number; groupsPerToken: number };
}

/** What a run is, kept in `run.json` of its folder. */
export interface RunFile {
  out: string;
  config: TrainConfig;
  model: ModelConfig;
  source: { corpus: string } | { paths: string[] };
  tokenizer: string | undefined;
  /** Where token files are kept; not part of what the run is, hence not in the file. */
  dataCache: string;
}

const FILE = 'run.json';

const runSchema = z.strictObject({
  version: z.literal(1),
  config: z.record(z.string(), z.unknown()),
  source: z.union([z.strictObject({ corpus: z.string() }), z.strictObject({ paths: z.array(z.string()) })]),
  tokenizer: z.string().optional(),
});

/** Starts a run in an empty folder or finds the one to resume. @throws UserError, UsageError */
export function openRun(options: RunOptions): RunFile {
  const { run, json } = planRun(options);
  if (json) beginRun(run, json);
  return run;
}

/** The folder and `run.json` of a new run. */
export function beginRun(run: RunFile, json: unknown): void {
  makeFolder(run.out);
  writeRun(path.join(run.out, FILE), run, json);
}

/**
 * What `openRun` would run; nothing is written.
 * @returns for a new run also what goes into its file
 * @throws UserError, UsageError
 */
export function planRun(options: RunOptions): { run: RunFile; json?: unknown } {
  const file = path.join(options.out, FILE);
  const exists = fs.existsSync(file);
  if (options.resume) {
    if (!exists)
      throw new UserError(`${options.out} holds no run to resume (${FILE} is missing); leave out --resume`);
    return { run: reopen(options, file) };
  }
  if (fs.existsSync(file) && hasProgress(options.out)) {
    throw new UserError(
      `${options.out} already holds a run; go on with it by --resume, or choose another --out`,
    );
  }
  const json = withOverrides(baseConfig(options), options);
  const run = build(options.out, json, options.configFile ?? `preset ${options.preset ?? 'mini'}`, {
    source: sourceOf(options),
    tokenizer: options.tokenizer,
    dataCache: cacheOf(options),
  });
  // Before anything is written: the text must be there.
  corpusFiles(run.source);
  return { run, json };
}

/** Whether a run got as far as a checkpoint or a model; one that failed before may be started again. */
const hasProgress = (out: string): boolean =>
  listStates(path.join(out, 'checkpoints')).length > 0 || fs.existsSync(path.join(out, 'config.json'));

/** The recorded run; settings given again must be the same, so that the resumed run equals an uninterrupted one. */
function reopen(options: RunOptions, file: string): RunFile {
  const parsed = runSchema.safeParse(readJsonFile(file));
  if (!parsed.success) throw new UserError(`${file} is not a run of this version of fathom`);
  const { config, source, tokenizer } = parsed.data;
  const run = build(options.out, config, file, { source, tokenizer, dataCache: cacheOf(options) });
  const named = options.preset !== undefined || options.configFile !== undefined;
  const given = parseTrainConfig(
    withOverrides(named ? baseConfig(options) : config, options),
    'the command line',
  );
  const changed = Object.keys(given).filter((key) => differ(given, run.config, key));
  if (options.corpus !== undefined || options.data?.length) {
    if (JSON.stringify(sourceOf(options)) !== JSON.stringify(source)) changed.push('corpus or data');
  }
  if (changed.length > 0) {
    throw new UsageError(
      `--resume goes on with the settings in ${file}, but ${changed.join(', ')} differ; leave them out`,
    );
  }
  return run;
}

const differ = (a: object, b: object, key: string): boolean =>
  JSON.stringify(a[key as keyof typeof a]) !== JSON.stringify(b[key as keyof typeof b]);

const sourceOf = ({ data, corpus }: RunOptions): RunFile['source'] =>
  data?.length ? { paths: data.map((p) => path.resolve(p)) } : { corpus: corpus ?? 'sotu' };

const cacheOf = ({ out, dataCache }: RunOptions): string => dataCache ?? path.join(out, 'data');

function build(
  out: string,
  json: unknown,
  origin: string,
  rest: Pick<RunFile, 'source' | 'tokenizer' | 'dataCache'>,
): RunFile {
  return { out, ...checkedConfig(json, origin), ...rest };
}

/**
 * Settings and model of a training file, checked together.
 * @param origin its name, for messages
 * @throws UserError naming file and field
 */
export function checkedConfig(json: unknown, origin: string): Pick<RunFile, 'config' | 'model'> {
  const config = parseTrainConfig(json, origin);
  const model = modelOf(config, origin);
  if (JSON.stringify(recipeOf(config).linear).includes('"e4m3"')) checkTiles(model, origin);
  if (config.sequenceLength > model.max_position_embeddings) {
    throw new UserError(
      `${origin}: sequenceLength (${config.sequenceLength}) exceeds the model's max_position_embeddings (${model.max_position_embeddings})`,
    );
  }
  return { config, model };
}

/** The model that a training file names or spells out. */
export function modelOf({ model }: TrainConfig, origin: string): ModelConfig {
  if (typeof model !== 'string') return parseModelConfig(model, `${origin}, model`);
  const preset = MODEL_PRESETS[model as ModelPreset];
  if (!preset)
    throw new UserError(
      `${origin}: unknown model "${model}"; known are ${Object.keys(MODEL_PRESETS).join(', ')}`,
    );
  return parseModelConfig(preset, `preset ${model}`);
}

function baseConfig({ preset, configFile }: RunOptions): Record<string, unknown> {
  if (configFile !== undefined) {
    if (preset !== undefined) throw new UsageError('give --preset or --config, not both');
    return readJsonFile(configFile) as Record<string, unknown>;
  }
  const found = TRAIN_PRESETS[preset ?? 'mini'];
  if (!found) {
    throw new UsageError(`--preset ${preset} is unknown; known are ${Object.keys(TRAIN_PRESETS).join(', ')}`);
  }
  return found;
}

/** Flags of the command line win over the file. */
function withOverrides(
  json: Record<string, unknown>,
  { steps, precision, seed, routing }: RunOptions,
): Record<string, unknown> {
  const given = Object.entries({ steps, precision, seed }).filter(([, value]) => value !== undefined);
  const model = routing && { model: withRouting(json.model, routing) };
  return { ...json, ...Object.fromEntries(given), ...model };
}

/** A model, by its preset's name or its fields, with other groups of experts; an unknown name is left to be reported. */
function withRouting(
  model: unknown,
  { groups, groupsPerToken }: NonNullable<RunOptions['routing']>,
): unknown {
  const fields = typeof model === 'string' ? MODEL_PRESETS[model as ModelPreset] : (model as object);
  return fields ? { ...fields, n_group: groups, topk_group: groupsPerToken } : model;
}

function writeRun(file: string, run: RunFile, config: unknown): void {
  const json = {
    version: 1,
    config,
    source: run.source,
    ...(run.tokenizer ? { tokenizer: run.tokenizer } : {}),
  };
  writeFileAtomicallySync(file, (fd) => writeFully(fd, Buffer.from(`${JSON.stringify(json, null, 2)}\n`), 0));
}
