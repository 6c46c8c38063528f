import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../errors.js';
import type { Part } from '../model/parameters.js';
import type { ModelSummary } from '../model/summary.js';
import { latentCacheBytesPerToken } from '../plan/cache.js';
import { list, table } from '../report/table.js';
import { bytes, count } from '../report/units.js';
import type { ModelConfig } from '../spec/model.js';
import { MODEL_PRESETS, type ModelPreset } from '../spec/presets.js';
import { PUBLIC_MODELS, type PublicModelName } from '../spec/public-models.js';
import type { CacheFormat } from '../spec/serving.js';
import { shapeOfConfig } from '../spec/shape.js';
import { PART_NAMES } from './part-names.js';
import { type Outcome, runs, type Session } from './session.js';

/** Everything that has a name here. */
const NAMES = [...Object.keys(MODEL_PRESETS), ...Object.keys(PUBLIC_MODELS)];

/** `fathom inspect DIR|FILE|NAME`. */
export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .description('show the shapes, types, parameters and bytes of a model')
    .argument('<model>', `a checkpoint folder, a config.json, or one of: ${NAMES.join(', ')}`);
  runs(command, (session, _options, [model]) => inspect(session, model!));
}

/** Checkpoints are read; of models that the engine does not run, `config.json` is enough. */
async function inspect(session: Session, source: string): Promise<Outcome> {
  if (existsSync(source) && statSync(source).isDirectory()) {
    return outcome(source, await summariseFolder(session, source));
  }
  const json = await description(source);
  const type = (json as { model_type?: unknown } | null)?.model_type;
  if (type === 'deepseek_v3' || type === 'deepseek_v2') {
    const { summariseModel } = await import('../model/summary.js');
    const { parseModelConfig } = await import('../spec/model.js');
    return outcome(source, summariseModel(parseModelConfig(json, source)));
  }
  const { inspectShape } = await import('./inspect-shape.js');
  const { parseModelShape } = await import('../spec/read-shape.js');
  return inspectShape(source, parseModelShape(json, source));
}

const outcome = (source: string, summary: ModelSummary): Outcome => ({
  json: toJson(source, summary),
  text: toText(source, summary),
});

/** Content of a `config.json`, by name or from a file. */
async function description(source: string): Promise<unknown> {
  if (Object.hasOwn(MODEL_PRESETS, source)) return MODEL_PRESETS[source as ModelPreset];
  if (Object.hasOwn(PUBLIC_MODELS, source)) return PUBLIC_MODELS[source as PublicModelName].config;
  const { readJsonFile } = await import('../files.js');
  if (existsSync(source)) return readJsonFile(source);
  throw new UserError(`${source} is neither a folder nor a file nor a known model (${NAMES.join(', ')})`);
}

async function summariseFolder(session: Session, folder: string): Promise<ModelSummary> {
  const { readCheckpoint } = await import('../model/checkpoint.js');
  const { summariseCheckpoint } = await import('../model/summary.js');
  if (!existsSync(join(folder, 'config.json'))) {
    throw new UserError(`${folder} has no config.json; name the folder of a checkpoint, or a preset`);
  }
  const checkpoint = readCheckpoint(folder);
  for (const note of checkpoint.notes) session.note(note);
  checkpoint.close();
  return summariseCheckpoint(checkpoint);
}

function toJson(source: string, { config, parameters, tensors, ...sizes }: ModelSummary): object {
  return { source, ...sizes, bytesByPart: bytesByPart(tensors), parameters, config, tensors };
}

function bytesByPart(tensors: ModelSummary['tensors']): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { part, mtp, bytes: own } of tensors) {
    const key = mtp ? 'mtp' : part;
    sums[key] = (sums[key] ?? 0) + own;
  }
  return sums;
}

// ---- Text -----------------------------------------------------------------------------------------------------

const TENSOR_PARTS: Record<Part | 'other' | 'mtp', string> = {
  ...PART_NAMES,
  mtpProjection: 'MTP projections',
  other: 'other tensors',
};

function toText(source: string, summary: ModelSummary): string {
  return [list(overview(source, summary)), partTable(summary), tensorTable(summary)].join('\n\n');
}

function overview(source: string, { config: c, parameters, cacheBytesPerToken, bytes: all }: ModelSummary) {
  const pairs: [string, string][] = [
    ['model', `${source} (${c.model_type})`],
    ['layers', `${c.num_hidden_layers}, the first ${c.first_k_dense_replace} dense; hidden ${c.hidden_size}`],
    ['attention', attention(c)],
    ['experts', experts(c)],
    ['vocabulary', `${c.vocab_size}${c.tie_word_embeddings ? ', embedding and head tied' : ''}`],
    ['context', context(c)],
    ['parameters', `${count(parameters.total)} total, ${count(parameters.active)} active per token`],
    ['stored', bytes(all)],
    ['cache', cache(c, cacheBytesPerToken)],
  ];
  if (parameters.mtp.total > 0) {
    const modules = `${c.num_nextn_predict_layers} module${c.num_nextn_predict_layers > 1 ? 's' : ''}`;
    pairs.splice(7, 0, ['MTP', `${modules}, ${count(parameters.mtp.total)} parameters beside those`]);
  }
  return pairs;
}

/** Bytes per token; the engine keeps the latents of MLA in narrower formats too. */
function cache(c: ModelConfig, inBf16: number): string {
  const wide = `${bytes(inBf16)} per token in BF16`;
  if (c.attention_kind !== 'mla') return `keys and values, ${wide}`;
  const narrow = (format: CacheFormat) => bytes(latentCacheBytesPerToken(shapeOfConfig(c), format));
  return `latents, ${wide}, ${narrow('fp8')} in FP8, ${narrow('logfmt8')} in LogFMT-8`;
}

const attention = (c: ModelConfig): string =>
  `${c.attention_kind.toUpperCase()}, ${c.num_attention_heads} heads of ${c.qk_nope_head_dim} + ${c.qk_rope_head_dim} rotary, ` +
  `values ${c.v_head_dim}; ${c.attention_kind === 'mla' ? latents(c) : `${c.num_key_value_heads} for keys and values`}`;

const latents = (c: ModelConfig): string =>
  `latents: ${c.q_lora_rank === null ? 'no query' : `query ${c.q_lora_rank}`}, key-value ${c.kv_lora_rank}`;

function experts(c: ModelConfig): string {
  const groups = c.n_group > 1 ? ` within ${c.topk_group} of ${c.n_group} groups` : '';
  const sizes = `${c.n_shared_experts} shared, width ${c.moe_intermediate_size}`;
  return `${c.num_experts_per_tok} of ${c.n_routed_experts}${groups}, ${sizes}, ${c.scoring_func} gate`;
}

function context({ max_position_embeddings: length, yarn }: ModelConfig): string {
  return yarn
    ? `${length} tokens (YaRN, factor ${yarn.factor} over ${yarn.original_max_position_embeddings})`
    : `${length} tokens`;
}

function partTable({ parameters, tensors }: ModelSummary): string {
  const stored = bytesByPart(tensors);
  const counts = { ...parameters.byPart, mtp: parameters.mtp, other: { total: 0, active: 0 } };
  const rows = Object.entries(stored).map(([key, size]) => {
    const { total, active } = counts[key as keyof typeof counts];
    return [TENSOR_PARTS[key as keyof typeof TENSOR_PARTS], count(total), count(active), bytes(size)];
  });
  const right = (title: string) => ({ title, align: 'right' as const });
  return table([{ title: 'part' }, right('parameters'), right('active'), right('bytes')], rows);
}

function tensorTable({ tensors }: ModelSummary): string {
  const rows = tensors.map((group) => [
    group.name,
    `[${group.shape.join(', ')}]`,
    group.dtype,
    String(group.tensors),
    count(group.elements),
    bytes(group.bytes),
  ]);
  const right = (title: string) => ({ title, align: 'right' as const });
  const columns = [{ title: 'tensor' }, { title: 'shape' }, { title: 'type' }];
  return table([...columns, right('tensors'), right('elements'), right('bytes')], rows);
}
