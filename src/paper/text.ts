import { plainNumber, signedPercent } from '../report/numbers.js';
import { table } from '../report/table.js';
import type { PaperResult } from './catalogue.js';
import { type Figure, verdictOf } from './row.js';

/** Beyond this a row says why. */
export const NOTEWORTHY = 0.05;

export const HOW_NAMES = { estimate: 'by formula', simulation: 'event by event', run: 'from runs' } as const;

/** Tables for a terminal. */
export const paperText = (parts: readonly PaperResult[]): string => parts.map(partText).join('\n\n');

function partText(part: PaperResult): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const rows = table(
    [
      { title: 'figure' },
      { title: 'unit' },
      right('paper'),
      right('fathom'),
      right('deviation'),
      right('band'),
    ],
    part.figures.map(cells),
  );
  const heading = `${part.source}  ${part.title}  (${HOW_NAMES[part.how]})`;
  return [heading, rows, ...causes(part), ...part.notes.map((note) => `note: ${note}`)].join('\n');
}

export function cells(figure: Figure): string[] {
  const { name, unit, theirs, ours, deviation, band } = figure;
  const mark = verdictOf(figure) === 'outside' ? ' OUTSIDE' : '';
  return [
    name,
    unit,
    theirs === null ? '' : plainNumber(theirs),
    plainNumber(ours),
    deviation === null ? '' : signedPercent(deviation) + mark,
    band === undefined ? '' : band < 1e-6 ? 'exact' : `±${plainNumber(100 * band)} %`,
  ];
}

/** One sentence for all rows that share it. */
function causes({ figures }: PaperResult): string[] {
  const byCause = new Map<string, string[]>();
  for (const { name, cause, deviation } of figures) {
    if (!cause || deviation === null || Math.abs(deviation) <= NOTEWORTHY) continue;
    byCause.set(cause, [...(byCause.get(cause) ?? []), name]);
  }
  return [...byCause].map(([cause, names]) => `cause (${names.join(', ')}): ${cause}`);
}

/** Rows beyond their bands. */
export const outside = (parts: readonly PaperResult[]): string[] =>
  parts.flatMap(({ id, figures }) =>
    figures.filter((figure) => verdictOf(figure) === 'outside').map(({ name }) => `${id}: ${name}`),
  );
