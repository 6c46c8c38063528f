import { table } from '../report/table.js';
import { bytes, count, duration } from '../report/units.js';
import type { NetworkCase, NetworkReport } from './network.js';
import type { PacketCase } from './packets.js';

/** The report for a terminal. */
export function networkText({ cases, packets }: NetworkReport): string {
  const tables = [
    ...(cases.length > 0 ? [flowTable(cases)] : []),
    ...(packets.length > 0 ? [packetTable(packets)] : []),
  ];
  return tables.join('\n\n');
}

const right = (title: string) => ({ title, align: 'right' as const });

function flowTable(cases: NetworkReport['cases']): string {
  const titles = ['flows', 'changes', 'routing', 'run', 'target', 'SimGrid', 'memory', 'ends apart'];
  const rows = cases.map((one) => [
    one.name,
    count(one.flows),
    count(one.events),
    duration(one.routingSeconds),
    duration(one.runSeconds),
    `${one.runSeconds <= one.targetSeconds ? 'met' : 'MISSED'} ${duration(one.targetSeconds)}`,
    simgridOf(one),
    bytes(one.residentBytes),
    one.peer?.finished ? `${(100 * one.peer.apart).toPrecision(2)} %` : '—',
  ]);
  return table([{ title: 'all-to-all, processor time' }, ...titles.map(right)], rows);
}

/** In this run, or else at another time. */
function simgridOf({ peer, simgridSeconds, runSeconds }: NetworkCase): string {
  if (peer) {
    return `${peer.finished ? '' : 'over '}${duration(peer.seconds)}, ×${(peer.seconds / runSeconds).toFixed(1)}`;
  }
  return simgridSeconds === null ? '—' : `${duration(simgridSeconds)} (known)`;
}

/** At least this many times htsim's events per second. */
const TARGET = 1.5;

function packetTable(cases: readonly PacketCase[]): string {
  const titles = ['cables crossed', 'a second', 'first run', 'of htsim', 'in flight', 'bytes a packet'];
  const rows = cases.map((one) => {
    const ratio = one.hopsPerSecond / one.htsimPerSecond;
    return [
      one.name,
      count(one.hops),
      count(one.hopsPerSecond),
      count(one.firstHopsPerSecond),
      `${ratio >= TARGET ? 'met' : 'MISSED'} ${ratio.toFixed(1)}`,
      count(one.mostInFlight),
      one.bytesPerPacket.toFixed(0),
    ];
  });
  return table([{ title: 'packets, processor time' }, ...titles.map(right)], rows);
}
