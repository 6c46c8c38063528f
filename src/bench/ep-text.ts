import { table } from '../report/table.js';
import { bytes, duration, percent, rate } from '../report/units.js';
import type { ExchangeResult } from './ep/exchange.js';
import { type FaultResult, LOST_AFTER_SECONDS } from './ep/faults.js';
import type { FlipResult } from './ep/flips.js';
import type { EpReport, LinkReport } from './ep.js';

const right = (title: string) => ({ title, align: 'right' as const });

/** The report for a terminal. */
export function epText({ sizes, links, linksSkipped, faults, flips, mpi }: EpReport): string {
  const local = table(
    [
      { title: `one host, ${mpi}` },
      ...['of a rank', 'time', 'speed', 'of MPI_Alltoallv', 'coding', 'waiting'].map(right),
    ],
    sizes.map(({ ranks, dispatchBytes, result }) => [
      `${ranks} ranks, ${bytes(dispatchBytes)} out`,
      bytes(result.bytesPerRank),
      duration(result.seconds),
      rate(result.bytesPerRank / result.seconds, 'B'),
      ofBare(result),
      percent(result.codecShare),
      percent(result.waitShare),
    ]),
  );
  const skipped = linksSkipped === null ? [] : [`hosts with slow links were not measured: ${linksSkipped}`];
  return [local, ...links.flatMap(linkTables), ...faultTable(faults), ...flipTable(flips), ...skipped].join(
    '\n\n',
  );
}

function faultTable(faults: readonly FaultResult[]): string[] {
  if (faults.length === 0) return [];
  const columns = [right('ended after'), right('left running'), right('resumed'), { title: 'said' }];
  const rows = faults.map(({ fault, secondsToEnd, orphans, resumed, message }) => [
    fault,
    secondsToEnd === null ? 'NEVER' : duration(secondsToEnd),
    `${orphans}`,
    resumed === null ? '—' : resumed ? 'yes' : 'NO',
    message ?? '—',
  ]);
  return [table([{ title: `faults, ranks lost after ${LOST_AFTER_SECONDS} s` }, ...columns], rows)];
}

function flipTable(flips: readonly FlipResult[]): string[] {
  if (flips.length === 0) return [];
  const rows = flips.map(({ where, check, flipped, told }) => [
    where,
    check,
    `${flipped}`,
    percent(told / flipped),
  ]);
  return [table([{ title: 'a bit flipped in' }, { title: 'check' }, right('flips'), right('told')], rows)];
}

const ofBare = ({ bareSeconds, seconds }: ExchangeResult): string =>
  bareSeconds === null ? '—' : percent(bareSeconds / seconds);

function linkTables(link: LinkReport): string[] {
  const { limits, formats, overlap, torch } = link;
  const name = `${link.hosts} hosts of ${link.ranksPerHost} ranks, ${link.bytesPerSecond / 1e6} MB/s each`;
  const all = limits[0]!.result;
  const bf16 = formats[0]!.result;
  const columns = ['between hosts', 'bytes ratio', 'time', 'time ratio', 'of MPI_Alltoallv', 'coding'].map(
    right,
  );
  const row = (label: string, { result }: { result: ExchangeResult }, base: ExchangeResult) => [
    label,
    bytes(result.acrossBytes),
    percent(result.acrossBytes / base.acrossBytes),
    duration(result.seconds),
    percent(result.seconds / base.seconds),
    ofBare(result),
    percent(result.codecShare),
  ];
  const byNodes = limits.map((one) =>
    row(`${one.nodes} nodes, ${one.result.copiesPerToken.toFixed(2)} copies`, one, all),
  );
  const byFormat = formats.map((one) => row(`fp8:${one.combine}`, one, bf16));
  const { exchangeSeconds, computeSeconds, serialSeconds, overlappedSeconds } = overlap;
  const steps = [
    ['exchange alone', duration(exchangeSeconds)],
    ['computation alone', duration(computeSeconds)],
    ['one after the other', duration(serialSeconds)],
    ['overlapped', duration(overlappedSeconds)],
    ['of the longer one', percent(overlappedSeconds / Math.max(exchangeSeconds, computeSeconds))],
    [
      'PyTorch, gloo, BF16, a copy for each expert',
      torch
        ? `${duration(torch.seconds)}, ${(torch.seconds / all.seconds).toFixed(2)} times ours`
        : 'not installed (FATHOM_PEERS)',
    ],
  ];
  return [
    table([{ title: `${name}: nodes a token` }, ...columns], byNodes),
    table([{ title: 'formats' }, ...columns], byFormat),
    table([{ title: 'two micro-batches' }, right('a step')], steps),
  ];
}
