import { UserError } from '../errors.js';
import { parseForeignShape } from './foreign.js';
import { parseModelConfig } from './model.js';
import { type ModelShape, shapeOfConfig } from './shape.js';

/** Types whose `config.json` is DeepSeek's under another name. */
const DEEPSEEK_ALIASES: Record<string, string> = { kimi_k2: 'deepseek_v3' };

/**
 * The shape that a `config.json` describes: DeepSeek-V2 and V3, Kimi-K2, Llama, Mistral, Mixtral, Qwen2, Qwen3 (dense and
 * MoE) and GLM-4.5. A composite file's `text_config` is taken.
 * @param source file name, for messages
 * @throws UserError naming file and field
 */
export function parseModelShape(json: unknown, source = 'config.json'): ModelShape {
  const fields = json as Record<string, unknown> | null;
  if (fields === null || typeof fields !== 'object') throw new UserError(`${source}: not a JSON object`);
  if (fields.text_config) return parseModelShape(fields.text_config, `${source}, text_config`);
  const type = String(fields.model_type);
  if (type === 'deepseek_v3' || type === 'deepseek_v2') return shapeOfConfig(parseModelConfig(json, source));
  const alias = DEEPSEEK_ALIASES[type];
  if (!alias) return parseForeignShape(fields, source);
  return { ...shapeOfConfig(parseModelConfig({ ...fields, model_type: alias }, source)), modelType: type };
}
