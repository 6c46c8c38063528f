import { cacheBytesPerToken } from '../plan/cache.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { PUBLIC_MODELS } from '../spec/public-models.js';
import { parseModelShape } from '../spec/read-shape.js';
import { banded, type Reproduction } from './row.js';

/** [ISCA table 1] kilobytes of 1000 bytes and multiples of the first row. */
const PRINTED = [
  ['DeepSeek-V3 (MLA)', MODEL_PRESETS['deepseek-v3'], 70.272, 1],
  ['Qwen-2.5 72B (GQA)', PUBLIC_MODELS['qwen2.5-72b'].config, 327.68, 4.66],
  ['LLaMA-3.1 405B (GQA)', PUBLIC_MODELS['llama-3.1-405b'].config, 516.096, 7.28],
] as const;

/** Table 1: cache of one token in BF16. */
export function table1(): Reproduction {
  const bytes = PRINTED.map(([, config]) => cacheBytesPerToken(parseModelShape(config)));
  const figures = PRINTED.flatMap(([name, , kilobytes, multiple], i) => [
    banded(name, 'kB', kilobytes, bytes[i]! / 1000, 1e-9),
    banded(`${name}, multiple`, '×', multiple, bytes[i]! / bytes[0]!, 0.01),
  ]);
  const notes = ['the paper cuts 7.34 down to 7.28 in the last multiple: 516.096 / 70.272 = 7.344'];
  return { source: 'ISCA table 1', title: 'Cache per token, BF16', figures, notes };
}
