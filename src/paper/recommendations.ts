import { DEFAULT_SERVE_PLAN } from '../plan/serve-plan.js';
import { DEEPSEEK_V3_PLAN } from '../plan/train-plan.js';
import { type Effect, whatIf } from '../plan/what-if.js';
import { machineNamed } from '../spec/machines.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { parseModelShape } from '../spec/read-shape.js';
import { figure, type Reproduction } from './row.js';

/** The paper's recommendations to hardware makers, each put in numbers and estimated: what is worth building. */
export function recommendations(): Reproduction {
  const shape = parseModelShape(MODEL_PRESETS['deepseek-v3']);
  const cluster = { name: '2,048 H800', machine: machineNamed('h800'), nodes: 256 };
  const { alone, together } = whatIf(shape, cluster, DEEPSEEK_V3_PLAN, DEFAULT_SERVE_PLAN);
  const rows = (effect: Effect) => {
    const { recommendation: of } = effect;
    const name = of === 'all' ? 'all together' : `§${of.section} ${of.title}`;
    const cause = of === 'all' ? {} : { cause: of.assumption };
    return [
      { ...figure(`${name}: training step`, '%', null, 100 * effect.stepChange), ...cause },
      figure(`${name}: whole run, failures included`, '%', null, 100 * effect.runChange),
      figure(`${name}: time per output token`, '%', null, 100 * effect.tokenChange),
    ];
  };
  return {
    source: 'ISCA §3 to §6',
    title: 'Hardware recommendations, put in numbers',
    figures: [...alone.flatMap(rows), ...rows(together)],
    notes: [
      'changes of the training step (plan of table 4) and of decoding (128 devices, batch 128, 4,096 tokens of context); most effective first',
      'a whole run: a checkpoint stops it for a minute, a restart takes ten (assumed), failures as often as in [arXiv 2407.21783]',
    ],
  };
}
