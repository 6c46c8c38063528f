/** A chart of means with their intervals, one row each, as SVG text. */
import { axis, background, colour, line, MARGIN, px, svg, text, WIDTH, xTick } from './svg.js';

export interface IntervalRow {
  label: string;
  mean: number;
  low: number;
  high: number;
}

export interface IntervalChart {
  title: string;
  xLabel: string;
  rows: readonly IntervalRow[];
  /** Vertical lines that intervals are held against, e.g. no difference, or a bound. */
  marks?: readonly { x: number; label: string }[];
}

const ROW = 34;
/** Room for the row labels, which are longer than numbers. */
const LEFT = 190;

/** @returns a complete SVG document, as high as its rows need; rows that are not finite are left out */
export function intervalSvg({ title, xLabel, rows: all, marks = [] }: IntervalChart): string {
  const rows = all.filter(({ mean, low, high }) => [mean, low, high].every(Number.isFinite));
  const bottom = MARGIN.top + Math.max(1, rows.length) * ROW;
  const values = [...rows.flatMap(({ low, high }) => [low, high]), ...marks.map(({ x }) => x)];
  const x = axis(values, LEFT, WIDTH - MARGIN.left);
  const middle = (LEFT + WIDTH - MARGIN.left) / 2;
  const parts = [
    background(bottom + MARGIN.bottom),
    text(middle, 26, title, 'text-anchor="middle" font-size="16"'),
    text(middle, bottom + 44, xLabel, 'text-anchor="middle"'),
    ...x.ticks.map((tick) => xTick(x.at(tick), tick, bottom)),
    ...marks.map((mark) => verticalMark(x.at(mark.x), mark.label, bottom)),
    ...rows.map((row, i) => rowMarks(row, x.at, MARGIN.top + (i + 0.5) * ROW, colour(i))),
  ];
  return svg(parts, bottom + MARGIN.bottom);
}

const verticalMark = (x: number, label: string, bottom: number): string =>
  line(x, MARGIN.top, x, bottom, '#555555') +
  text(x, MARGIN.top - 6, label, 'text-anchor="middle" fill="#555555"');

function rowMarks(
  { label, mean, low, high }: IntervalRow,
  x: (value: number) => number,
  y: number,
  stroke: string,
) {
  const bar = `<line x1="${px(x(low))}" y1="${px(y)}" x2="${px(x(high))}" y2="${px(y)}" stroke="${stroke}" stroke-width="3"/>`;
  const dot = `<circle cx="${px(x(mean))}" cy="${px(y)}" r="5" fill="${stroke}"/>`;
  return bar + dot + text(LEFT - 10, y + 4, label, 'text-anchor="end"');
}
