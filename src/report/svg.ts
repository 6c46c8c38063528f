/** What all charts share: size, axes, grid, legend and escaping. Charts are SVG text, for files, pages and the browser. */

/** Titles of a chart. */
export interface Titles {
  title: string;
  xLabel: string;
  yLabel: string;
  /** How numbers on the axes are written; as they are without. */
  xText?: (value: number) => string;
  yText?: (value: number) => string;
}

export const WIDTH = 860;
export const HEIGHT = 520;
export const MARGIN = { left: 70, right: 170, top: 50, bottom: 60 } as const;
/** Okabe and Ito's palette, distinct for colour-blind readers (jfly.uni-koeln.de/color), and a grey. */
const COLOURS = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#000000',
  '#999999',
] as const;
const TICKS = 6;

/** The colour of the i-th series. */
export const colour = (series: number): string => COLOURS[series % COLOURS.length]!;

/** Where a value lies, in pixels. */
export type Place = (value: number) => number;

export interface Axis {
  at: Place;
  ticks: number[];
}

/** A linear axis from pixel `from` to `to` that begins and ends on round numbers. */
export function axis(values: readonly number[], from: number, to: number): Axis {
  const [low, high] = values.length > 0 ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const step = roundStep((high - low || 1) / (TICKS - 1));
  const first = Math.floor(low / step) * step;
  const count = Math.max(1, Math.ceil((high - first) / step));
  const ticks = Array.from({ length: count + 1 }, (_, i) => first + i * step);
  return { at: (value) => from + ((value - first) / (count * step)) * (to - from), ticks };
}

/** The axes that hold these values, in the space inside the margins. */
export const axes = (xs: readonly number[], ys: readonly number[]): { x: Axis; y: Axis } => ({
  x: axis(xs, MARGIN.left, WIDTH - MARGIN.right),
  y: axis(ys, HEIGHT - MARGIN.bottom, MARGIN.top),
});

/** The least of 1, 2, 5 · 10^k that is not below `wanted`. */
function roundStep(wanted: number): number {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= wanted * (1 - 1e-9))!;
}

/** A complete SVG document of these elements. */
export function svg(parts: readonly string[], height = HEIGHT): string {
  const size = `width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}"`;
  const font = 'font-family="system-ui, sans-serif" font-size="12"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${font}>\n${parts.join('\n')}\n</svg>\n`;
}

/** Background, titles and grid. */
export function frame({ title, xLabel, yLabel, xText, yText }: Titles, x: Axis, y: Axis): string {
  const [middleX, middleY] = [
    (MARGIN.left + WIDTH - MARGIN.right) / 2,
    (MARGIN.top + HEIGHT - MARGIN.bottom) / 2,
  ];
  return [
    background(HEIGHT),
    text(middleX, 26, title, 'text-anchor="middle" font-size="16"'),
    text(middleX, HEIGHT - 16, xLabel, 'text-anchor="middle"'),
    text(20, middleY, yLabel, `text-anchor="middle" transform="rotate(-90 20 ${middleY})"`),
    ...x.ticks.map((tick) => xTick(x.at(tick), tick, HEIGHT - MARGIN.bottom, xText)),
    ...y.ticks.map((tick) => yTick(y.at(tick), tick, yText)),
  ].join('\n');
}

export const background = (height: number): string =>
  `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`;

/** A vertical grid line down to `bottom`, and its number. */
export const xTick = (x: number, value: number, bottom: number, written = tidy): string =>
  line(x, MARGIN.top, x, bottom) + text(x, bottom + 18, written(value), 'text-anchor="middle"');

const yTick = (y: number, value: number, written = tidy): string =>
  line(MARGIN.left, y, WIDTH - MARGIN.right, y) +
  text(MARGIN.left - 8, y + 4, written(value), 'text-anchor="end"');

/** The i-th entry of the legend. */
export function legend(name: string, i: number): string {
  const [x, y] = [WIDTH - MARGIN.right + 20, MARGIN.top + 10 + i * 20];
  return `<circle cx="${x}" cy="${y}" r="5" fill="${colour(i)}"/>${text(x + 12, y + 4, name)}`;
}

export const line = (x1: number, y1: number, x2: number, y2: number, stroke = '#dddddd'): string =>
  `<line x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}" stroke="${stroke}"/>`;

export const text = (x: number, y: number, content: string, attributes = ''): string =>
  `<text x="${px(x)}" y="${px(y)}" ${attributes}>${escapeXml(content)}</text>`;

/** Pixels with one decimal. */
export const px = (value: number): string => String(Math.round(value * 10) / 10);

function tidy(value: number): string {
  return String(Number(value.toPrecision(6)));
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** Text inside an element or a quoted attribute of SVG or HTML. */
export const escapeXml = (content: string): string =>
  content.replace(/[&<>"]/g, (character) => ENTITIES[character]!);
