import type { LargestTraining } from '../plan/largest.js';
import type { NetworkCheck } from '../plan/network-check.js';
import type { Candidate, SearchResult } from '../plan/search.js';
import { explain } from '../plan/search.js';
import type { ServeEstimate } from '../plan/serve.js';
import type { ServePlan } from '../plan/serve-plan.js';
import type { ServeCandidate, ServeSearchResult } from '../plan/serve-search.js';
import type { Goodput, TrainEstimate, TrainRun } from '../plan/train.js';
import { microBatches, type TrainPlan } from '../plan/train-plan.js';
import type { TrainSimulation } from '../plan/train-simulation.js';
import type { Effect } from '../plan/what-if.js';
import { signedPercent } from '../report/numbers.js';
import { list, table } from '../report/table.js';
import { bytes, duration, percent, rate, si } from '../report/units.js';

/** Estimates as text for a terminal. */

export function trainText(
  plan: TrainPlan,
  e: TrainEstimate,
  good: Goodput,
  run: TrainRun,
  largest: LargestTraining,
): string {
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
      [
        `a run of ${si(run.tokens)} tokens`,
        `${run.days.toPrecision(3)} days, ${si(run.deviceHours)} device hours, ${si(run.dollars)} dollars, failures included`,
      ],
    ]),
    list([
      ['memory', `${bytes(memory.total)} of ${bytes(memory.capacity)}${memory.fits ? '' : ': DOES NOT FIT'}`],
      ['  weights, gradients', `${bytes(memory.weights)}, ${bytes(memory.gradients)}`],
      ['  optimizer', bytes(memory.optimizer)],
      ['  activations', bytes(memory.activations)],
      ['  exchange buffers', bytes(memory.buffers)],
      [
        'largest micro-batch',
        largest.microBatch === 0 ? 'not even one sequence' : `${largest.microBatch} sequences`,
      ],
      ['longest sequence', largest.length === 0 ? 'none' : `${largest.length} tokens`],
    ]),
  ].join('\n\n');
}

/** Parts of a step as events have them, mean over the devices. */
export function eventsText({ stepSeconds, parts }: TrainSimulation): string {
  const share = (seconds: number) => `${duration(seconds)} (${percent(seconds / stepSeconds)})`;
  return list([
    ['step by events', duration(stepSeconds)],
    ['  forward alone', share(parts.forward)],
    ['  backward alone', `${share(parts.inputs)} for inputs, ${share(parts.weights)} for weights`],
    ['  both overlapped', share(parts.overlapped)],
    ['  bubble', share(parts.bubble)],
    ['  optimizer', share(parts.optimizer)],
  ]);
}

export const planText = (p: TrainPlan): string =>
  `PP ${p.pipeline} (${p.schedule}), DP ${p.data}, EP ${p.expert}, TP ${p.tensor}${p.context > 1 ? `, CP ${p.context}` : ''}; ${microBatches(p)} micro-batches of ` +
  `${p.microBatch} × ${p.length} tokens; ${p.format}, ZeRO-${p.zero}, recompute ${p.recompute}${p.nodeLimit === null ? '' : `, at most ${p.nodeLimit} nodes a token`}`;

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
      [
        'prefill apart',
        `${percent(e.split.prefillShare)} of the devices take prompts in, the others decode; a prompt's cache moves in ${duration(e.split.handOffSeconds)}`,
      ],
      [
        '  together',
        `${rate(e.split.tokensPerSecondPerDevice, 'tokens')} a device, ${e.split.dollarsPerMillionTokens.toPrecision(3)} dollars a million`,
      ],
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
      `${result.enumerated} enumerated, ${result.impossible} impossible, ${result.predicted} predicted, ${result.tooLarge} too large, ${result.limited} beyond a limit`,
    ],
  ]);
  const [best, next] = [result.ranked[0], runnerUp(result.ranked)];
  if (!best)
    return `${counted}\n\nno plan fits; add nodes, recompute more, lower the length or raise a limit`;
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
    ...['PP', 'DP', 'EP', 'TP', 'CP', 'micro', 'ZeRO', 'nodes'].map(right),
    { title: 'schedule' },
    { title: 'format' },
    { title: 'recompute' },
    ...['step', 'MFU', 'memory', '$/T tokens'].map(right),
  ];
  const rows = found.map(({ plan: p, estimate: e }) => [
    ...[p.pipeline, p.data, p.expert, p.tensor, p.context, p.microBatch, p.zero, p.nodeLimit ?? ''].map(
      String,
    ),
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

export function serveSearchText(result: ServeSearchResult, shown: number): string {
  const { enumerated, impossible, tooLarge, limited, ranked, front } = result;
  const counted = list([
    [
      'plans',
      `${enumerated} enumerated, ${impossible} impossible, ${tooLarge} too large, ${limited} beyond a limit`,
    ],
  ]);
  if (ranked.length === 0)
    return `${counted}\n\nno plan is left; add nodes, lower the context or loosen the limits`;
  const best = serveCandidates(ranked.slice(0, shown));
  const step = Math.max(1, Math.floor(front.length / shown));
  const spread = serveCandidates(front.filter((_, i) => i % step === 0));
  return `${counted}\n\n${best}\n\nfront of time per token and yield:\n${spread}`;
}

function serveCandidates(found: readonly ServeCandidate[]): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const columns = [
    ...['devices', 'TP', 'batch', 'drafts'].map(right),
    { title: 'halves' },
    { title: 'format' },
    ...['time per token', 'tokens/s a device', 'prefill', 'memory', '$/M tokens'].map(right),
  ];
  const rows = found.map(({ plan: p, estimate: e }) => [
    ...[p.devices, p.tensor, p.batch, p.draftDepth].map(String),
    p.overlap ? 'two' : 'one',
    p.format,
    duration(e.timePerOutputTokenSeconds),
    si(e.split.tokensPerSecondPerDevice),
    percent(e.split.prefillShare),
    bytes(e.memory.total),
    e.split.dollarsPerMillionTokens.toPrecision(3),
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
    signedPercent(effect.runChange),
    signedPercent(effect.tokenChange),
  ]);
  const columns = [
    { title: 'paper' },
    { title: 'what is built' },
    right('training step'),
    right('whole run'),
    right('time per token'),
  ];
  const assumptions = alone.flatMap(({ recommendation: of }) =>
    of === 'all' ? [] : [`${of.title}: ${of.assumption}`],
  );
  return `${table(columns, rows)}\n\n${assumptions.join('\n')}`;
}

/** Communication by formula and by simulation. */
export function networkText(checks: readonly NetworkCheck[], network: string): string {
  if (checks.length === 0) return 'nothing of the plan goes over the network';
  const right = (title: string) => ({ title, align: 'right' as const });
  const columns = [
    { title: `on ${network}` },
    right('a device'),
    right('by formula'),
    right('by flows'),
    right('flows over formula'),
  ];
  const rows = checks.map(({ name, bytes: size, formulaSeconds, flowSeconds }) => [
    name,
    bytes(size),
    duration(formulaSeconds),
    duration(flowSeconds),
    signedPercent(flowSeconds / formulaSeconds - 1),
  ]);
  return table(columns, rows);
}
