import { type Column, list, table } from '../report/table.js';
import { bytes, count, percent, si } from '../report/units.js';
import type { InferReport } from './infer.js';
import { MEASURES, type MeasureName } from './infer-cases.js';
import { shareOfFloor } from './infer-checks.js';
import type { ContestantResult, FormatResult } from './infer-contest.js';
import { machineLines, verdict } from './kernel-text.js';
import type { ParityReport } from './parity.js';

const right = (title: string): Column => ({ title, align: 'right' });

/** The report for a terminal. */
export function inferText(report: InferReport): string {
  return [
    list([...machineLines(report.machine), ...setting(report)]),
    ...report.formats.map((format) => formatTable(format)),
    list(report.formats.map((format) => floorLine(format, report.readBandwidth))),
    list(
      report.checks.map(({ name, value, target, met }) => [
        name,
        `${shown(value)} (target ${shown(target)}): ${verdict(met)}`,
      ]),
    ),
  ].join('\n\n');
}

const shown = (value: number): string => (Math.abs(value) >= 1e4 ? bytes(value) : value.toFixed(2));

const setting = ({ model, parameters, threads, readBandwidth, peer }: InferReport): [string, string][] => [
  [
    'model',
    `${model}, random weights: ${count(parameters.total)} parameters, ${count(parameters.active)} active`,
  ],
  ['threads', `${threads}; memory reads ${si(readBandwidth, 'B/s')}`],
  ...(peer
    ? ([['peer', `llama.cpp ${peer.llamaCpp}, node-llama-cpp ${peer.nodeLlamaCpp}`]] as [string, string][])
    : []),
];

const NAMES: Record<string, string> = {
  runner: 'fathom, bare loop',
  engine: 'fathom, API',
  node: 'node-llama-cpp',
};

function formatTable({ format, contestants }: FormatResult): string {
  const measures = Object.keys(MEASURES) as MeasureName[];
  const columns = [
    { title: `${format}, tokens/s` },
    ...measures.map((m) => right(MEASURES[m].name)),
    right('beside a neighbour'),
    right('resident'),
  ];
  const rows = Object.entries(contestants as Record<string, ContestantResult>).map(([name, result]) => [
    NAMES[name] ?? name,
    ...measures.map((m) => speed(result.measures[m]?.tokensPerSecond)),
    speed(result.besideNeighbour),
    bytes(result.residentBytes),
  ]);
  return table(columns, rows);
}

const speed = (tokensPerSecond: number | undefined): string =>
  tokensPerSecond === undefined ? '' : tokensPerSecond.toFixed(1);

function floorLine(format: FormatResult, readBandwidth: number): [string, string] {
  const floor = readBandwidth / format.activeBytes;
  const share = shareOfFloor(format, readBandwidth);
  const reached = share === undefined ? '' : `, ${percent(share)} reached`;
  const first = `; first token ${format.firstTokenSeconds.toFixed(2)} s after the command`;
  return [
    format.format,
    `${bytes(format.activeBytes)} read per token: at most ${floor.toFixed(1)} tokens/s${reached}${first}`,
  ];
}

/** Greedy continuations against llama.cpp's. */
export function parityText({ length, cases, equal }: ParityReport): string {
  const columns = [
    { title: 'type' },
    { title: 'peer' },
    { title: 'prompt' },
    right(`same of ${length}`),
    { title: 'where they part' },
  ];
  const rows = cases.map(({ type, peer, prompt, agree, parting }) => [
    type,
    peer,
    prompt,
    String(agree),
    parting
      ? `llama.cpp's best logit ahead by ${parting.margin.toPrecision(2)}: ${parting.tie ? 'a tie' : 'DIFFERENT'}`
      : '',
  ]);
  return `${table(columns, rows)}\n\n${equal ? 'The same continuations, up to ties.' : 'NOT the same continuations.'}`;
}
