import {
  type FlopsByPart,
  forwardFlopsByPart,
  meanKeys,
  sumFlops,
  trainingFlopsPerToken,
} from '../plan/flops.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { PUBLIC_MODELS } from '../spec/public-models.js';
import { parseModelShape } from '../spec/read-shape.js';
import { banded, figure, type Reproduction } from './row.js';

const LENGTH = 4096;

/** [ISCA table 2] GFLOP per token of training; bands are what the count, which is not bent, leaves. */
const PRINTED = [
  ['DeepSeek-V2 236B', MODEL_PRESETS['deepseek-v2'], 155, 0.01, undefined],
  ['DeepSeek-V3 671B', MODEL_PRESETS['deepseek-v3'], 250, 0.01, undefined],
  [
    'Qwen-72B dense',
    PUBLIC_MODELS['qwen2.5-72b'].config,
    394,
    0.14,
    '6 operations for each of 71.5 G weights (embedding left out) are 429 G already; 394 = 6 · 65.7 G fits no Qwen of 72 B parameters',
  ],
  ['LLaMA-405B dense', PUBLIC_MODELS['llama-3.1-405b'].config, 2448, 0.02, undefined],
] as const;

const NAMES: Record<keyof FlopsByPart, string> = {
  attentionProjections: 'attention, projections',
  attentionCore: 'attention, scores and values (causal)',
  denseMlp: 'dense MLP',
  sharedExperts: 'shared experts',
  routedExperts: 'routed experts',
  gate: 'gates',
  head: 'output head',
  mtp: 'MTP',
};

/** Table 2: operations of training per token, every term listed. */
export function table2(): Reproduction {
  const figures = PRINTED.flatMap(([name, config, theirs, band, cause]) => {
    const shape = parseModelShape(config);
    const parts = forwardFlopsByPart(shape, meanKeys(LENGTH, true), 0);
    const terms = (Object.keys(parts) as (keyof FlopsByPart)[])
      .filter((part) => parts[part] > 0)
      .map((part) => figure(`${name}: ${NAMES[part]}`, 'GFLOP', null, (3 * parts[part]) / 1e9));
    const total = (3 * sumFlops(parts)) / 1e9;
    const full = trainingFlopsPerToken(shape, LENGTH, false, 0) / 1e9;
    return [
      banded(name, 'GFLOP', theirs, total, band, cause),
      ...terms,
      figure(`${name}: without the causal mask`, 'GFLOP', null, full),
    ];
  });
  return {
    source: 'ISCA table 2',
    title: 'Training compute per token at 4,096 tokens',
    figures,
    notes: [
      'two operations a multiply-add, three passes, a token meets half of the sequence; embedding look-ups, norms, softmax, recomputation and MTP are not counted',
    ],
  };
}
