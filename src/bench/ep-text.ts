import { table } from '../report/table.js';
import { bytes, duration, percent, rate, si } from '../report/units.js';
import type { CutResult } from './ep/cuts.js';
import type { ExchangeResult } from './ep/exchange.js';
import { type FaultResult, LOST_AFTER_SECONDS } from './ep/faults.js';
import type { FlipResult } from './ep/flips.js';
import type { PlanesReport } from './ep/planes.js';
import type { StepTimes, TrainingResult } from './ep/training.js';
import type { EpReport, LinkReport } from './ep.js';

const right = (title: string) => ({ title, align: 'right' as const });

/** The report for a terminal. */
export function epText(report: EpReport): string {
  const { sizes, training, links, linksSkipped, planes, faults, cuts, flips, mpi } = report;
  const local = table(
    [
      { title: `one host, ${mpi}` },
      ...['of a rank', 'time', 'speed', 'of MPI_Alltoallv', 'coding', 'waiting'].map(right),
    ],
    sizes.map(({ ranks, dispatchBytes, result }) => [
      `${ranks} ranks, ${bytes(dispatchBytes)} out`,
      bytes(result.bytesPerRank),
      duration(result.seconds),
      si(result.bytesPerRank / result.seconds, 'B/s'),
      ofBare(result),
      percent(result.codecShare),
      percent(result.waitShare),
    ]),
  );
  const skipped = linksSkipped === null ? [] : [`hosts with slow links were not measured: ${linksSkipped}`];
  return [
    local,
    ...trainingTable(training),
    ...links.flatMap(linkTables),
    ...planeTable(planes),
    ...faultTable(faults),
    ...cutTable(cuts),
    ...flipTable(flips),
    ...skipped,
  ].join('\n\n');
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

function planeTable(reports: readonly PlanesReport[]): string[] {
  if (reports.length === 0) return [];
  const { hosts, ranksPerHost } = reports[0]!;
  const columns = ['one link of the sum', 'planes', 'time ratio', 'bytes by plane'].map(right);
  const rows = reports.map(({ planes, bytesPerSecond, shared, split, sentBytes }) => [
    `${planes} planes of ${bytesPerSecond / 1e6} MB/s`,
    duration(shared.seconds),
    duration(split.seconds),
    percent(split.seconds / shared.seconds),
    sentBytes.map(bytes).join(', '),
  ]);
  return [table([{ title: `${hosts} hosts of ${ranksPerHost} ranks` }, ...columns], rows)];
}

function cutTable(cuts: readonly CutResult[]): string[] {
  if (cuts.length === 0) return [];
  const columns = ['before', 'longest step', 'while cut', 'after', 'sent meanwhile', 'same losses'].map(
    right,
  );
  const rows = cuts.map((one) => [
    one.cut,
    duration(one.beforeSeconds),
    duration(one.longestSeconds),
    one.duringSeconds === null ? '—' : duration(one.duringSeconds),
    duration(one.afterSeconds),
    one.sentBytes.map(bytes).join(', '),
    one.sameLosses ? 'yes' : 'NO',
  ]);
  return [table([{ title: 'cut in mid-run, a step' }, ...columns], rows)];
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
  const { limits, formats, training, torch } = link;
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
    row(
      `${one.nodes} ${one.nodes === 1 ? 'node' : 'nodes'}, ${one.result.copiesPerToken.toFixed(2)} copies`,
      one,
      all,
    ),
  );
  const byFormat = formats.map((one) => row(`fp8:${one.combine}`, one, bf16));
  const peer = [
    'PyTorch, gloo, BF16, a copy for each expert',
    torch
      ? `${duration(torch.seconds)}, ${(torch.seconds / all.seconds).toFixed(2)} times ours`
      : 'not installed (FATHOM_PEERS)',
  ];
  return [
    table([{ title: `${name}: nodes a token` }, ...columns], byNodes),
    table([{ title: 'formats' }, ...columns], byFormat),
    table([{ title: 'the same exchange elsewhere' }, right('time')], [peer]),
    ...(training ? [overlapTable(training)] : []),
  ];
}

/** The longer one of what a step computes and what it sends: forward and backward cannot be shorter. */
const boundSeconds = ({ plain, exchangeSeconds }: TrainingResult): number =>
  Math.max(plain.passSeconds - plain.waitSeconds, exchangeSeconds ?? 0);

/** Steps without and with halves that overlap. */
function overlapTable(result: TrainingResult): string {
  const { plain, overlapped, exchangeSeconds } = result;
  const bound = boundSeconds(result);
  const row = (name: string, { seconds, passSeconds, waitSeconds, optimizerSeconds }: StepTimes) => [
    name,
    ...[passSeconds, waitSeconds].map(duration),
    percent(passSeconds / bound),
    ...[optimizerSeconds, seconds].map(duration),
  ];
  const columns = ['forward, backward', 'waiting', 'of the longer one', 'optimizer', 'step'].map(right);
  const alone = (name: string, seconds: number) => [name, duration(seconds), '', '', '', ''];
  return table(
    [{ title: 'training, two hosts of one rank' }, ...columns],
    [
      row('one micro-batch at a time', plain),
      ...(overlapped ? [row('halves that overlap', overlapped)] : []),
      alone('computation alone', plain.passSeconds - plain.waitSeconds),
      alone('exchange alone', exchangeSeconds ?? 0),
    ],
  );
}

/** Speeds of one rank and of two. */
function trainingTable(training: EpReport['training']): string[] {
  if (!training) return [];
  const { model, oneRank, twoRanks } = training;
  const speed = ({ tokensPerStep, plain }: TrainingResult) => tokensPerStep / plain.seconds;
  const row = (name: string, result: TrainingResult, times: StepTimes) => [
    name,
    rate(result.tokensPerStep / times.seconds, 'tokens'),
    percent(result.tokensPerStep / times.seconds / speed(oneRank)),
    ...[times.passSeconds, times.waitSeconds, times.codecSeconds, times.optimizerSeconds].map(duration),
  ];
  const { overlapped } = twoRanks;
  const columns = ['speed', 'ratio', 'forward, backward', 'waiting', 'coding', 'optimizer'].map(right);
  return [
    table(
      [{ title: `training ${model}, BF16` }, ...columns],
      [
        row('1 rank, 2 threads', oneRank, oneRank.plain),
        row('2 ranks, 1 thread', twoRanks, twoRanks.plain),
        ...(overlapped ? [row('the same, halves overlap', twoRanks, overlapped)] : []),
      ],
    ),
  ];
}
