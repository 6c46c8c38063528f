import { type OpTime, timesByOp } from '../backend/timed.js';
import { type Column, list, table } from '../report/table.js';
import { bytes, duration, percent, rate, si } from '../report/units.js';
import { machineLines, spread, verdict } from './kernel-text.js';
import type { PeerResult } from './peer.js';
import type { PrecisionResult, TrainReport } from './train.js';

/** The report for a terminal. */
export function trainText(report: TrainReport): string {
  const { bf16, fp8, peer } = report;
  return [
    list([...machineLines(report.machine), ...setting(report)]),
    speedTable({ bf16, fp8 }, peer),
    ...(peer ? [peerTable(peer)] : []),
    list(memoryLines(report)),
    ...[bf16, fp8].flatMap(({ ops }, i) => (ops ? [profileText(i === 0 ? 'BF16' : 'FP8', ops)] : [])),
    list(report.checks.map((c) => [c.name, checkText(c)])),
  ].join('\n\n');
}

const setting = (r: TrainReport): [string, string][] => [
  ['model', `${r.model}, ${r.sequences} × ${r.length} tokens, ${r.threads} threads`],
  ['work', `${si(r.flopsPerToken, 'FLOP')} per token`],
  [
    'BF16 peak',
    `dot product ${si(r.ceilings.dotbf16, 'FLOP/s')}` +
      (r.ceilings.amxbf16 > 0 ? `, matrix unit ${si(r.ceilings.amxbf16, 'FLOP/s')}` : ''),
  ],
];

const right = (title: string): Column => ({ title, align: 'right' });

function speedTable(ours: Record<'bf16' | 'fp8', PrecisionResult>, peer: PeerResult | null): string {
  const columns = [
    { title: 'training step' },
    ...['median', 'spread', 'speed', 'MFU', 'MFU of dot'].map(right),
  ];
  const rows = Object.entries(ours).map(([name, r]) => [
    `fathom ${name}`,
    duration(r.seconds.median),
    spread(r.seconds),
    rate(r.tokensPerSecond, 'tokens'),
    percent(r.mfu),
    percent(r.mfuOfDot),
  ]);
  if (peer) {
    const best = peer.variants[peer.best]!;
    const cells = [duration(best.median), spread(best), rate(peer.tokensPerSecond, 'tokens')];
    rows.push(['PyTorch, best', ...cells, '', '']);
  }
  return table(columns, rows);
}

function peerTable(peer: PeerResult): string {
  const rows = Object.entries(peer.variants)
    .sort(([, a], [, b]) => a.median - b.median)
    .map(([name, v]) => [name, duration(v.median), String(v.steps)]);
  const head = `PyTorch ${peer.torch}, transformers ${peer.transformers}; oneDNN: ${peer.onednn}`;
  const missing = [
    ...peer.skipped.map((name) => `not reached in the time given: ${name}`),
    ...Object.entries(peer.failed).map(([name, why]) => `failed: ${name}: ${why}`),
  ];
  return [head, table([{ title: 'variant' }, right('step'), right('steps')], rows), ...missing].join('\n');
}

function memoryLines({ memory: { predicted, measured, residentBytes } }: TrainReport): [string, string][] {
  const parts = (['parameters', 'gradients', 'moments', 'packedWeights', 'activations'] as const)
    .map((part) => `${part} ${bytes(measured[part])}`)
    .join(', ');
  return [
    ['ledger', `${bytes(predicted.total)} predicted, ${bytes(measured.total)} measured: ${parts}`],
    ['resident', `${bytes(residentBytes)} more than before the model was made`],
  ];
}

/** Calls with their shapes that are listed below the sums by op. */
const DETAILS_SHOWN = 25;

function profileText(title: string, ops: readonly OpTime[]): string {
  const total = ops.reduce((n, t) => n + t.seconds, 0);
  const row = (t: OpTime) => [
    `${t.op} ${t.detail}`.trim(),
    String(Math.round(t.calls)),
    duration(t.seconds),
    percent(t.seconds / total),
    t.flops > 0 ? si(t.flops / t.seconds, 'FLOP/s') : '',
    si(t.bytes / t.seconds, 'B/s'),
  ];
  const columns = [
    { title: `${title} step by op` },
    ...['calls', 'time', 'share', 'products', 'operands'].map(right),
  ];
  const detailed = ops.filter(({ detail }) => detail !== '').slice(0, DETAILS_SHOWN);
  return [
    table(columns, timesByOp(ops).map(row)),
    table([{ title: 'of which' }, ...columns.slice(1)], detailed.map(row)),
  ].join('\n\n');
}

function checkText({ value, target, met }: TrainReport['checks'][number]): string {
  return `${value.toFixed(3)} (target ${target}): ${verdict(met)}`;
}
