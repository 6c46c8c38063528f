/** A chart of labelled points as SVG text: one function from data to figure, for reports, files and the browser. */

export interface ScatterPoint {
  x: number;
  y: number;
  label: string;
}

export interface ScatterSeries {
  name: string;
  points: readonly ScatterPoint[];
}

export interface ScatterChart {
  title: string;
  xLabel: string;
  yLabel: string;
  series: readonly ScatterSeries[];
}

const WIDTH = 860;
const HEIGHT = 520;
const MARGIN = { left: 70, right: 170, top: 50, bottom: 60 } as const;
/** Okabe and Ito's palette, distinct for colour-blind readers (jfly.uni-koeln.de/color). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'] as const;
const TICKS = 6;
/** A label moves down until it is at least so far from the labels above it, in pixels. */
const LABEL_HEIGHT = 12;
const LABEL_WIDTH = 90;

/** @returns a complete SVG document; points that are not finite are left out */
export function scatterSvg(chart: ScatterChart): string {
  const series = chart.series.map(({ name, points }) => ({ name, points: points.filter(isFinitePoint) }));
  const all = series.flatMap(({ points }) => points);
  const x = axis(
    all.map((point) => point.x),
    MARGIN.left,
    WIDTH - MARGIN.right,
  );
  const y = axis(
    all.map((point) => point.y),
    HEIGHT - MARGIN.bottom,
    MARGIN.top,
  );
  const parts = [
    frame(chart),
    ...x.ticks.map((tick) => xTick(x.at(tick), tick)),
    ...y.ticks.map((tick) => yTick(y.at(tick), tick)),
    ...series.map(({ points }, i) => marks(points, x.at, y.at, colour(i))),
    labels(series, x.at, y.at),
    ...series.map(({ name }, i) => legend(name, i)),
  ];
  const size = `width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}"`;
  const font = 'font-family="system-ui, sans-serif" font-size="12"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${font}>\n${parts.join('\n')}\n</svg>\n`;
}

const isFinitePoint = ({ x, y }: ScatterPoint): boolean => Number.isFinite(x) && Number.isFinite(y);

const colour = (series: number): string => COLOURS[series % COLOURS.length]!;

interface Axis {
  at(value: number): number;
  ticks: number[];
}

/** A linear axis from pixel `from` to `to` that begins and ends on round numbers. */
function axis(values: readonly number[], from: number, to: number): Axis {
  const [low, high] = values.length > 0 ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const step = roundStep((high - low || 1) / (TICKS - 1));
  const first = Math.floor(low / step) * step;
  const count = Math.max(1, Math.ceil((high - first) / step));
  const ticks = Array.from({ length: count + 1 }, (_, i) => first + i * step);
  return { at: (value) => from + ((value - first) / (count * step)) * (to - from), ticks };
}

/** The least of 1, 2, 5 · 10^k that is not below `wanted`. */
function roundStep(wanted: number): number {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= wanted * (1 - 1e-9))!;
}

function frame({ title, xLabel, yLabel }: ScatterChart): string {
  const [middleX, middleY] = [
    (MARGIN.left + WIDTH - MARGIN.right) / 2,
    (MARGIN.top + HEIGHT - MARGIN.bottom) / 2,
  ];
  return [
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(middleX, 26, title, 'text-anchor="middle" font-size="16"'),
    text(middleX, HEIGHT - 16, xLabel, 'text-anchor="middle"'),
    text(20, middleY, yLabel, `text-anchor="middle" transform="rotate(-90 20 ${middleY})"`),
  ].join('\n');
}

function xTick(x: number, value: number): string {
  const bottom = HEIGHT - MARGIN.bottom;
  return line(x, MARGIN.top, x, bottom) + text(x, bottom + 18, tidy(value), 'text-anchor="middle"');
}

function yTick(y: number, value: number): string {
  return (
    line(MARGIN.left, y, WIDTH - MARGIN.right, y) +
    text(MARGIN.left - 8, y + 4, tidy(value), 'text-anchor="end"')
  );
}

type Place = (value: number) => number;

const marks = (points: readonly ScatterPoint[], x: Place, y: Place, fill: string): string =>
  points
    .map((point) => `<circle cx="${px(x(point.x))}" cy="${px(y(point.y))}" r="4" fill="${fill}"/>`)
    .join('\n');

/** Labels beside their points, from top to bottom, moved down where another is in the way. */
function labels(series: readonly ScatterSeries[], x: Place, y: Place): string {
  const wanted = series
    .flatMap(({ points }, i) =>
      points.map((point) => ({
        left: x(point.x) + 7,
        top: y(point.y) + 4,
        label: point.label,
        fill: colour(i),
      })),
    )
    .sort((a, b) => a.top - b.top);
  const placed: typeof wanted = [];
  for (const label of wanted) {
    for (const other of placed) {
      const near = Math.abs(other.left - label.left) < LABEL_WIDTH;
      if (near && label.top < other.top + LABEL_HEIGHT) label.top = other.top + LABEL_HEIGHT;
    }
    placed.push(label);
  }
  return placed.map(({ left, top, label, fill }) => text(left, top, label, `fill="${fill}"`)).join('\n');
}

function legend(name: string, i: number): string {
  const [x, y] = [WIDTH - MARGIN.right + 20, MARGIN.top + 10 + i * 20];
  return `<circle cx="${x}" cy="${y}" r="5" fill="${colour(i)}"/>${text(x + 12, y + 4, name)}`;
}

const line = (x1: number, y1: number, x2: number, y2: number): string =>
  `<line x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}" stroke="#dddddd"/>`;

const text = (x: number, y: number, content: string, attributes = ''): string =>
  `<text x="${px(x)}" y="${px(y)}" ${attributes}>${escapeXml(content)}</text>`;

const px = (value: number): string => String(Math.round(value * 10) / 10);

const tidy = (value: number): string => String(Number(value.toPrecision(6)));

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeXml = (content: string): string =>
  content.replace(/[&<>"]/g, (character) => ENTITIES[character]!);
