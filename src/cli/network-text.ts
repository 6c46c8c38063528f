/** Outcomes of `fathom network` for people. */
import type { NetworkCost } from '../cluster/cost.js';
import type { Parts } from '../cluster/describe.js';
import type { PacketResult } from '../cluster/packet/simulate.js';
import type { ReliabilityReport } from '../cluster/reliability.js';
import type { SimulationResult } from '../cluster/simulate.js';
import type { Validation } from '../cluster/validate.js';
import type { Reproduction } from '../paper/row.js';
import type { SizeCurve } from '../report/size-curves.js';
import { list, table } from '../report/table.js';
import { binaryBytes, count, duration, percent, si } from '../report/units.js';
import type { Reliability } from '../spec/faults.js';
import type { Prices } from '../spec/prices.js';
import type { Scenario } from '../spec/scenario.js';

const right = (title: string) => ({ title, align: 'right' as const });
const left = (title: string) => ({ title });

export function described({ name, network }: Scenario, parts: Parts, validation: Validation): string {
  const overview = list([
    ['network', `${name} (${network.topology.kind})`],
    ['endpoints', `${parts.endpoints} on ${parts.nodes} nodes, ${parts.nics} NICs`],
    ['planes', String(parts.planes)],
    ['switches', parts.layers.map(({ layer, switches }) => `${switches} in layer ${layer}`).join(', ')],
    ['cables', parts.cables.map(({ kind, cables }) => `${cables} ${kind}`).join(', ')],
    ['longest way', `${validation.switchDiameter} switches`],
    [
      'bisection',
      `${si(validation.bisectionBytesPerSecond, 'B/s')} (${percent(validation.bisectionShare)} of full)`,
    ],
  ]);
  const checks = validation.checks.map(({ name: check, holds, finding }) => [
    check,
    holds ? 'holds' : 'FAILS',
    finding,
  ]);
  return [overview, table([left('check'), left(''), left('finding')], checks)].join('\n\n');
}

const money = (dollars: number): string => si(dollars, '$');

export function cost({ name }: Scenario, c: NetworkCost, prices: Prices, share: number | null): string {
  const cable = (part: NetworkCost['fabric']) =>
    `${part.count} cables, ${part.optical} of them fibre, ${part.meanMetres.toFixed(1)} m on average`;
  const rows = [
    ['switches', String(c.switches), money(c.switchDollars), si(c.switchWatts, 'W')],
    ['between switches', cable(c.fabric), money(c.fabric.dollars), si(c.fabric.watts, 'W')],
    [
      'to endpoints',
      cable(c.endpointCables),
      money(c.endpointCables.dollars),
      si(c.endpointCables.watts, 'W'),
    ],
    ['all', `${c.endpoints} endpoints`, money(c.dollars), si(c.watts, 'W')],
    ['per endpoint', '', money(c.dollarsPerEndpoint), si(c.wattsPerEndpoint, 'W')],
  ];
  const allToAll =
    share === null
      ? 'all-to-all not walked: too many switches'
      : `uniform all-to-all over shortest ways gives ${percent(share)} of a port, so ${money(c.dollarsPerEndpoint / (50 * share))} per GB/s delivered at 400 Gb/s`;
  return [
    `${name}, prices ${prices.name} (${prices.source})`,
    table([left('part'), left('what'), right('cost'), right('power')], rows),
    allToAll,
  ].join('\n\n');
}

interface SweepRow {
  endpoints: number;
  networks: { name: string; cost: NetworkCost | null; allToAllShare: number | null }[];
}

/** GB/s of a port in a sweep: 400 Gb/s. */
const PORT = 50;

export function costSweep(rows: readonly SweepRow[], prices: Prices): string {
  const names = rows[0]!.networks.map(({ name }) => name);
  type Cell = (c: NetworkCost, endpoints: number, share: number | null) => string;
  const sheet = (cell: Cell) => {
    const cells = rows.map(({ endpoints, networks }) => [
      String(endpoints),
      ...networks.map(({ cost: c, allToAllShare }) => (c ? cell(c, endpoints, allToAllShare) : '—')),
    ]);
    return table([right('endpoints'), ...names.map(right)], cells);
  };
  return [
    `k$ per endpoint in use, smallest network of 64-port switches; prices ${prices.name} (${prices.source})`,
    sheet((c, endpoints) => (c.dollars / endpoints / 1000).toFixed(2)),
    'W per endpoint in use',
    sheet((c, endpoints) => (c.watts / endpoints).toFixed(1)),
    '$ per GB/s that an endpoint gets in a uniform all-to-all over shortest ways; — where it is not walked',
    sheet((c, endpoints, share) =>
      share === null ? '—' : (c.dollars / endpoints / (PORT * share)).toFixed(1),
    ),
  ].join('\n\n');
}

const gigabytes = (bytesPerSecond: number): string => `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;

export function simulated(
  { name, routing }: Scenario,
  result: SimulationResult,
  resolution?: number,
): string {
  const exactness = resolution ? `, ends within ${resolution} of the time taken as one` : '';
  return [
    `${name}: ${result.endpoints} endpoints, routing ${routing.mode}, ${count(result.flows)} flows, ${count(result.events)} changes of rates${exactness}`,
    ...outcome(result),
  ].join('\n\n');
}

export function simulatedPackets({ name, routing, packet }: Scenario, result: PacketResult): string {
  const { packets: p } = result;
  const rows: [string, string][] = [
    [
      'packets',
      `${count(p.packets)} of up to ${packet.mtuBytes} bytes over ${count(p.hops)} cables, ${count(p.mostInFlight)} at once`,
    ],
    ['virtual channels', String(p.virtualChannels)],
    ['most queued', p.mostQueued ? `${si(p.mostQueuedBytes, 'B')} from ${p.mostQueued}` : 'nothing'],
    [
      'out of order',
      p.overtaken > 0 ? `${count(p.overtaken)} packets, by up to ${p.mostLatePlaces}` : 'none',
    ],
  ];
  if (packet.flowControl === 'pfc')
    rows.push(['pauses', `${count(p.pauses)}, a buffer held up to ${si(p.mostHeldBytes, 'B')}`]);
  if (packet.congestionControl !== 'none')
    rows.push([packet.congestionControl, `${count(p.marks)} marks, ${count(p.cuts)} cuts`]);
  if (packet.bitErrorRate > 0) rows.push(['sent again', count(p.retries)]);
  for (const line of p.starved) rows.push(['starved', line]);
  return [
    `${name}: ${result.endpoints} endpoints, routing ${routing.mode}, ${count(result.flows)} flows packet by packet, ${packet.flowControl}, ${count(result.events)} events`,
    ...outcome(result),
    list(rows),
  ].join('\n\n');
}

/** Tables of a simulation's traffic and links. */
function outcome(result: SimulationResult): string[] {
  const pieces = result.pieces.map((piece) => [
    piece.name,
    String(piece.flows),
    si(piece.seconds, 's'),
    gigabytes(piece.algorithmBytesPerSecond),
    gigabytes(piece.busBytesPerSecond),
    si(piece.flowSeconds.median, 's'),
    si(piece.flowSeconds.p99, 's'),
  ]);
  const links = result.links.map(({ kind, channels, meanUse, mostUse, busiest }) => [
    kind,
    String(channels),
    percent(meanUse),
    percent(mostUse),
    busiest,
  ]);
  return [
    table(
      [
        left('traffic'),
        right('flows'),
        right('time'),
        right('alg. bandwidth'),
        right('bus bandwidth'),
        right('flow p50'),
        right('p99'),
      ],
      pieces,
    ),
    ...(result.moments ? [momentsTable(result.moments)] : []),
    ...(links.length > 0
      ? [table([left('links'), right('channels'), right('mean use'), right('most'), left('busiest')], links)]
      : []),
  ];
}

const momentsTable = (moments: NonNullable<SimulationResult['moments']>): string =>
  table(
    [right('time'), left('what happens'), right('flows that stand still')],
    moments.map(({ seconds, event, stalled }) => [si(seconds, 's'), event, String(stalled)]),
  );

export function failures(
  report: ReliabilityReport,
  { restartSeconds, checkpointSeconds }: Reliability,
): string {
  const rows = report.parts.map(({ part, count: parts, mtbfHours, perDay, broken, slowdown }) => [
    part,
    String(parts),
    `${si(mtbfHours)} h`,
    perDay.toPrecision(3),
    broken.toPrecision(3),
    slowdown === null ? 'ends the job' : `×${slowdown.toFixed(3)}`,
  ]);
  const columns = [
    left('parts'),
    right('number'),
    right('MTBF of one'),
    right('failures a day'),
    right('broken at a time'),
    right('traffic with the busiest broken'),
  ];
  const job: [string, string][] = [
    ['failures that end the job', `every ${duration(report.jobMtbfSeconds)}`],
    ['availability', `${percent(report.availability)}, restarts of ${duration(restartSeconds)}`],
    [
      'goodput',
      `${percent(report.goodput)}, checkpoints of ${duration(checkpointSeconds)} every ${duration(report.intervalSeconds)}`,
    ],
    ['traffic on average', `×${report.meanSlowdown.toFixed(4)}, for what is broken and gone around`],
  ];
  return [report.name, table(columns, rows), list(job)].join('\n\n');
}

export function curves(all: readonly SizeCurve[], written: readonly string[]): string {
  const columns = all.flatMap(({ name }) => [right(`${name}: time`), right('bus bandwidth')]);
  const rows = all[0]!.points.map(({ bytes }, i) => [
    binaryBytes(bytes),
    ...all.flatMap(({ points }) => [si(points[i]!.seconds, 's'), gigabytes(points[i]!.busBytesPerSecond)]),
  ]);
  return [table([right('size'), ...columns], rows), ...noteOf(written)].join('\n\n');
}

const noteOf = (written: readonly string[]): string[] =>
  written.length > 0 ? [`written: ${written.join(', ')}`] : [];

export function compared(results: readonly SimulationResult[]): string {
  const rows = results.flatMap(({ name, pieces }) =>
    pieces.map((piece, i) => [
      i === 0 ? name : '',
      piece.name,
      si(piece.seconds, 's'),
      gigabytes(piece.busBytesPerSecond),
      `${((piece.seconds / results[0]!.pieces[Math.min(i, results[0]!.pieces.length - 1)]!.seconds - 1) * 100).toFixed(2)} %`,
    ]),
  );
  const first = `time over ${results[0]!.name}`;
  return table(
    [left('scenario'), left('traffic'), right('time'), right('bus bandwidth'), right(first)],
    rows,
  );
}

const plain = (value: number): string =>
  Math.abs(value) >= 1e6 ? si(value) : String(Number(value.toPrecision(5)));

export function reproduced(reproductions: readonly Reproduction[], written: readonly string[]): string {
  const parts = reproductions.map(({ source, title, figures, notes }) => {
    const rows = figures.map(({ name, unit, theirs, ours, deviation }) => [
      name,
      theirs === null ? '—' : plain(theirs),
      plain(ours),
      unit,
      deviation === null ? '—' : `${deviation >= 0 ? '+' : ''}${(100 * deviation).toFixed(2)} %`,
    ]);
    const columns = [left('figure'), right('paper'), right('ours'), left(''), right('deviation')];
    return [`${source}: ${title}`, table(columns, rows), ...notes.map((note) => `  ${note}`)].join('\n');
  });
  return [...parts, ...noteOf(written)].join('\n\n');
}
