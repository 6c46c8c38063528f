import { type Column, list, table } from '../report/table.js';
import { bytes, duration, percent, si } from '../report/units.js';
import type { KernelReport, KernelResult } from './kernels.js';
import type { Ceilings, Machine } from './machine.js';
import type { Timing } from './measure.js';

/** The report for a terminal. */
export function kernelText({ machine, ceilings, kernels }: KernelReport): string {
  const judged = kernels.filter(({ met }) => met !== null);
  const met = judged.filter((kernel) => kernel.met).length;
  return [
    list(machineLines(machine)),
    ceilingTable(ceilings),
    kernelTable(kernels),
    `${met} of ${judged.length} targets met. Shares are medians; compute: of the fastest BF16 unit, memory: of its speed.`,
  ].join('\n\n');
}

/** Names and values of a machine. */
export const machineLines = (m: Machine): [string, string][] => [
  ['machine', `${m.cpu}, ${m.cores} cores, ${bytes(m.memoryBytes)}`],
  ['instruction set', m.isa],
  ['system', `${m.system}, Node ${m.node}`],
  ['date', m.date],
];

const right = (title: string): Column => ({ title, align: 'right' });

function ceilingTable(ceilings: readonly Ceilings[]): string {
  const row = (name: string, value: (c: Ceilings) => string) => [name, ...ceilings.map(value)];
  const threads = ceilings.map((c) => right(`${c.threads} thread${c.threads > 1 ? 's' : ''}`));
  return table(
    [{ title: 'ceiling' }, ...threads],
    [
      row('FP32 multiply-add', (c) => si(c.fma32, 'FLOP/s')),
      row('BF16 dot product', (c) => si(c.dotbf16, 'FLOP/s')),
      row('BF16 matrix unit', (c) => (c.amxbf16 > 0 ? si(c.amxbf16, 'FLOP/s') : 'none')),
      row('memory read', (c) => si(c.read, 'B/s')),
      row('memory copy, read + written', (c) => si(c.copy, 'B/s')),
    ],
  );
}

function kernelTable(kernels: readonly KernelResult[]): string {
  const columns = [{ title: 'kernel' }, ...['threads', 'median', 'spread', 'speed'].map(right)];
  const shares = ['of its ceiling', 'of BF16 dot', 'target'].map(right);
  return table(
    [...columns, ...shares, { title: '' }],
    kernels.map((k) => [
      k.name,
      String(k.threads),
      duration(k.seconds.median),
      spread(k.seconds),
      si(k.rate, k.kind === 'compute' ? 'FLOP/s' : 'B/s'),
      percent(k.share),
      k.shareOfDot === null ? '' : percent(k.shareOfDot),
      k.target === null ? '' : percent(k.target),
      verdict(k.met),
    ]),
  );
}

/** Fastest and slowest measurement against the median. */
export function spread({ median, fastest, slowest }: Omit<Timing, 'repeats'>): string {
  const percentOff = (seconds: number) => Math.round((seconds / median - 1) * 100);
  return `${percentOff(fastest)}…+${percentOff(slowest)} %`;
}

export const verdict = (met: boolean | null): string => (met === null ? '' : met ? 'met' : 'NOT MET');
