import { type Column, list, table } from '../report/table.js';
import { duration, percent, si } from '../report/units.js';
import { machineLines, spread, verdict } from './kernel-text.js';
import { type CodecResult, type NumericsReport, peerMet, type Target } from './numerics.js';

const right = (title: string): Column => ({ title, align: 'right' });

/** The report for a terminal. */
export function numericsText({ machine, ceilings, codecs, peers, nic }: NumericsReport): string {
  const memory = `${si(ceilings.read, 'B/s')} read, ${si(ceilings.copy, 'B/s')} copied (read + written)`;
  const card = `${nic.cores} cores for a network card of ${si(nic.bytesPerSecond, 'B/s')}, BF16 values`;
  const parts = [
    list([...machineLines(machine), ['memory, one core', memory]]),
    codecTable(codecs),
    `${card}: the codec's time over the card's time for the same values`,
    nicTable(nic.shares),
  ];
  if (peers.length > 0)
    parts.push('FP32 → E4M3 on the same arrays, one thread, processor time', peerTable(peers));
  return parts.join('\n\n');
}

function codecTable(codecs: readonly CodecResult[]): string {
  const columns = [{ title: 'codec, one core, processor time' }, { title: 'operands' }];
  const numbers = ['median', 'spread', 'values', 'as FP32', 'of roofline', 'target'].map(right);
  return table(
    [...columns, ...numbers, { title: '' }],
    codecs.map((c) => [
      c.name,
      c.operands,
      duration(c.seconds.median),
      spread(c.seconds),
      si(c.valuesPerSecond, '/s'),
      si(c.fp32BytesPerSecond, 'B/s'),
      percent(c.roofline),
      c.target ? targetText(c.target) : '',
      verdict(c.met),
    ]),
  );
}

const targetText = (target: Target): string =>
  'roofline' in target ? percent(target.roofline) : si(target.valuesPerSecond, '/s');

function nicTable(shares: NumericsReport['nic']['shares']): string {
  return table(
    [{ title: 'format' }, ...['bytes/value', 'encode', 'decode'].map(right)],
    shares.map((s) => [s.format, s.bytesPerValue.toFixed(4), percent(s.encode), percent(s.decode)]),
  );
}

function peerTable(peers: NumericsReport['peers']): string {
  return table(
    [{ title: 'peer' }, { title: 'operands' }, right('time'), right('over ours'), { title: '' }],
    peers.map((peer) => [
      peer.name,
      peer.operands,
      peer.seconds === null ? '' : duration(peer.seconds),
      peer.speedup === null ? '' : `${peer.speedup.toFixed(2)}×`,
      peer.problem ?? verdict(peerMet(peer)),
    ]),
  );
}
