import type { Candidate, SearchResult } from '../plan/search.js';
import { explain } from '../plan/search.js';
import type { ServeEstimate } from '../plan/serve.js';
import type { ServePlan } from '../plan/serve-plan.js';
import type { Goodput, TrainEstimate } from '../plan/train.js';
import { microBatches, type TrainPlan } from '../plan/train-plan.js';
import type { Effect } from '../plan/what-if.js';
import { signedPercent } from '../report/numbers.js';
import { list, table } from '../report/table.js';
import { bytes, duration, percent, rate, si } from '../report/units.js';

/** Estimates as text for a terminal. */

export function trainText(plan: TrainPlan, e: TrainEstimate, good: Goodput): string {
  const { memory, end } = e;
  return [
    list([
      ['plan', planText(plan)],
      ['step', `${duration(e.stepSeconds)} for ${si(e.tokensPerStep)} tokens`],
      ['  passes', duration(e.workSeconds)],
      ['  bubble', `${duration(e.bubbleSeconds)} (${percent(e.bubbleSeconds / e.stepSeconds)})`],
      [
        '  reduce, update, gather',
        [end.reduceSeconds, end.updateSeconds, end.gatherSeconds].map(duration).join(', '),
      ],
      ['tokens', `${rate(e.tokensPerSecond, 'tokens')}, ${si(e.tokensPerDay)} a day`],
      [
        'per device',
        `${si(e.causalFlopsPerSecond, 'FLOPS')} causal, ${si(e.fullFlopsPerSecond, 'FLOPS')} not`,
      ],
      ['MFU (BF16 peak)', `${percent(e.causalMfu)} causal, ${percent(e.fullMfu)} not`],
      [
        'a trillion tokens',
        `${si(e.deviceHoursPerTrillionTokens)} device hours, ${si(e.dollarsPerTrillionTokens)} dollars`,
      ],
      [
        'with failures',
        `${percent(good.share)} of the time is progress: ${good.failuresPerDay.toPrecision(2)} failures a day, a checkpoint every ${duration(good.bestIntervalSeconds)}`,
      ],
    ]),
    list([
      ['memory', `${bytes(memory.total)} of ${bytes(memory.capacity)}${memory.fits ? '' : ': DOES NOT FIT'}`],
      ['  weights, gradients', `${bytes(memory.weights)}, ${bytes(memory.gradients)}`],
      ['  optimizer', bytes(memory.optimizer)],
      ['  activations', bytes(memory.activations)],
      ['  exchange buffers', bytes(memory.buffers)],
    ]),
  ].join('\n\n');
}

export const planText = (p: TrainPlan): string =>
  `PP ${p.pipeline} (${p.schedule}), DP ${p.data}, EP ${p.expert}, TP ${p.tensor}; ${microBatches(p)} micro-batches of ` +
  `${p.microBatch} × ${p.length} tokens; ${p.format}, ZeRO-${p.zero}, recompute ${p.recompute}`;

export function serveText(plan: ServePlan, e: ServeEstimate): string {
  const { decodeStep: step, memory } = e;
  return [
    list([
      [
        'plan',
        `${plan.devices} devices a group, TP ${plan.tensor}, batch ${plan.batch} a device, context ${plan.context}`,
      ],
      ['time to first token', duration(e.timeToFirstTokenSeconds)],
      [
        'prefill',
        `${rate(e.prefillTokensPerSecondPerDevice, 'tokens')} a device, ${rate(e.prefillTokensPerSecondPerNode, 'tokens')} a node`,
      ],
      [
        'time per output token',
        `${duration(e.timePerOutputTokenSeconds)}, ${rate(1 / e.timePerOutputTokenSeconds, 'tokens')} a user`,
      ],
      [
        'decode',
        `${rate(e.decodeTokensPerSecondPerDevice, 'tokens')} a device, ${rate(e.decodeTokensPerSecondPerNode, 'tokens')} a node`,
      ],
      ['  attention, GEMMs', `${duration(step.attentionSeconds)}, ${duration(step.gemmSeconds)} a step`],
      ['  exchange, head', `${duration(step.exchangeSeconds)}, ${duration(step.headSeconds)}`],
      ['tokens per step', e.tokensPerStep.toPrecision(3)],
      ['a million tokens', `${e.dollarsPerMillionTokens.toPrecision(3)} dollars`],
    ]),
    list([
      ['memory', `${bytes(memory.total)} of ${bytes(memory.capacity)}${memory.fits ? '' : ': DOES NOT FIT'}`],
      ['  weights, cache', `${bytes(memory.weights)}, ${bytes(memory.cache)}`],
      ['largest batch', `${memory.largestBatch} at this context`],
      ['longest context', `${memory.longestContext} tokens at this batch`],
    ]),
  ].join('\n\n');
}

export function searchText(result: SearchResult, shown: number): string {
  const counted = list([
    [
      'plans',
      `${result.enumerated} enumerated, ${result.impossible} impossible, ${result.predicted} predicted, ${result.tooLarge} too large`,
    ],
  ]);
  const [best, next] = [result.ranked[0], runnerUp(result.ranked)];
  if (!best) return `${counted}\n\nno plan fits; add nodes, recompute more or lower the length`;
  const parts = [counted, candidates(result.ranked.slice(0, shown))];
  if (next) parts.push(`the first of another kind: ${explain(best, next)}`);
  parts.push(`front of step time and memory:\n${candidates(result.front.slice(0, shown))}`);
  return parts.join('\n\n');
}

/** The best plan that differs in more than sharding. */
const runnerUp = (ranked: readonly Candidate[]): Candidate | undefined =>
  ranked.find(
    ({ plan }) =>
      plan.pipeline !== ranked[0]!.plan.pipeline ||
      plan.expert !== ranked[0]!.plan.expert ||
      plan.schedule !== ranked[0]!.plan.schedule,
  );

function candidates(found: readonly Candidate[]): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const columns = [
    ...['PP', 'DP', 'EP', 'TP', 'micro', 'ZeRO'].map(right),
    { title: 'schedule' },
    { title: 'format' },
    { title: 'recompute' },
    ...['step', 'MFU', 'memory', '$/T tokens'].map(right),
  ];
  const rows = found.map(({ plan: p, estimate: e }) => [
    ...[p.pipeline, p.data, p.expert, p.tensor, p.microBatch, p.zero].map(String),
    p.schedule,
    p.format,
    p.recompute,
    duration(e.stepSeconds),
    percent(e.causalMfu),
    bytes(e.memory.total),
    si(e.dollarsPerTrillionTokens),
  ]);
  return table(columns, rows);
}

export function whatIfText({ alone, together }: { alone: readonly Effect[]; together: Effect }): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const name = ({ recommendation: of }: Effect) =>
    of === 'all' ? ['', 'all together'] : [`§${of.section}`, of.title];
  const rows = [...alone, together].map((effect) => [
    ...name(effect),
    signedPercent(effect.stepChange),
    signedPercent(effect.tokenChange),
  ]);
  const columns = [
    { title: 'paper' },
    { title: 'what is built' },
    right('training step'),
    right('time per token'),
  ];
  const assumptions = alone.flatMap(({ recommendation: of }) =>
    of === 'all' ? [] : [`${of.title}: ${of.assumption}`],
  );
  return `${table(columns, rows)}\n\n${assumptions.join('\n')}`;
}
