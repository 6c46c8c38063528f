/** A chart of who does what when, one row a device, as SVG text. */
import { background, colour, escapeXml, MARGIN, px, svg, text, WIDTH, xTick } from './svg.js';

/** One piece of work. */
export interface Bar {
  /** Of the rows. */
  row: number;
  start: number;
  end: number;
  /** Index of the kind of work, which gives the colour. */
  kind: number;
  /** Short text inside, left out where it does not fit. */
  label: string;
}

export interface TimelineChart {
  title: string;
  xLabel: string;
  /** Names of the rows, top to bottom. */
  rows: readonly string[];
  kinds: readonly string[];
  bars: readonly Bar[];
}

const ROW_HEIGHT = 22;
const CHARACTER = 5.5;

/** @returns a complete SVG document */
export function timelineSvg(chart: TimelineChart): string {
  const end = chart.bars.reduce((latest, bar) => Math.max(latest, bar.end), 0) || 1;
  const scale = (WIDTH - MARGIN.left - MARGIN.right) / end;
  const bottom = MARGIN.top + chart.rows.length * ROW_HEIGHT;
  const height = bottom + MARGIN.bottom;
  const at = (time: number) => MARGIN.left + time * scale;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => Number((share * end).toPrecision(3)));
  return svg(
    [
      background(height),
      text(WIDTH / 2, 26, chart.title, 'text-anchor="middle" font-size="16"'),
      text((MARGIN.left + WIDTH - MARGIN.right) / 2, height - 16, chart.xLabel, 'text-anchor="middle"'),
      ...ticks.map((tick) => xTick(at(tick), tick, bottom)),
      ...chart.rows.map((name, row) =>
        text(MARGIN.left - 8, MARGIN.top + (row + 0.7) * ROW_HEIGHT, name, 'text-anchor="end"'),
      ),
      ...chart.bars.map((bar) => drawBar(bar, at)),
      ...chart.kinds.map((kind, i) => key(kind, i)),
    ],
    height,
  );
}

function drawBar({ row, start, end, kind, label }: Bar, at: (time: number) => number): string {
  const [x, y, width] = [at(start), MARGIN.top + row * ROW_HEIGHT + 2, at(end) - at(start)];
  const shape = `<rect x="${px(x)}" y="${px(y)}" width="${px(width)}" height="${ROW_HEIGHT - 4}" fill="${colour(kind)}" stroke="#ffffff" stroke-width="0.5"/>`;
  if (width < label.length * CHARACTER + 2) return shape;
  const middle = `x="${px(x + width / 2)}" y="${px(y + 13)}"`;
  return `${shape}<text ${middle} fill="#ffffff" font-size="9" text-anchor="middle">${escapeXml(label)}</text>`;
}

function key(kind: string, i: number): string {
  const [x, y] = [WIDTH - MARGIN.right + 16, MARGIN.top + i * 20];
  return `<rect x="${x}" y="${y}" width="12" height="12" fill="${colour(i)}"/>${text(x + 18, y + 10, kind)}`;
}
