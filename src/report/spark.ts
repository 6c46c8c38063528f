/** A point of a curve. */
export interface Point {
  x: number;
  y: number;
}

export interface CurveOptions {
  /** Characters of the plot, axis labels aside. */
  width?: number;
  /** Lines of the plot. */
  height?: number;
  /** What y is, above the axis. */
  title?: string;
  /** What x is, beside its end. */
  xLabel?: string;
}

/** Eighths of a character cell, from empty to full. */
const BLOCKS = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const;

/**
 * A curve as a filled area of block characters with axis labels, for a terminal. Points that share a column are
 * averaged, columns without a point are interpolated; points that are not finite are left out.
 * @param points ascending in x
 * @returns lines without a trailing newline; a remark where fewer than two points can be drawn
 */
export function curve(points: readonly Point[], options: CurveOptions = {}): string {
  const { width = 60, height = 8, title, xLabel = '' } = options;
  const finite = points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
  const heading = title ? [title] : [];
  if (finite.length < 2) return [...heading, '(too few points to draw)'].join('\n');
  const columns = resample(finite, width);
  const [low, high] = [Math.min(...columns), Math.max(...columns)];
  const labels = [high, low].map(label);
  const gutter = Math.max(...labels.map((text) => text.length));
  const lines = Array.from({ length: height }, (_, line) => {
    const text = line === 0 ? labels[0]! : line === height - 1 ? labels[1]! : '';
    return `${text.padStart(gutter)} ┤${areaLine(columns, low, high, height - 1 - line, height)}`;
  });
  return [...heading, ...lines, ...xAxis(finite, width, gutter, xLabel)].join('\n');
}

/** Level `row` (0 at the bottom) of `rows`: how far each column fills it. The lowest value still shows one eighth. */
function areaLine(columns: readonly number[], low: number, high: number, row: number, rows: number): string {
  const eighths = rows * 8;
  return columns
    .map((value) => {
      const filled = 1 + Math.round(((value - low) / (high - low || 1)) * (eighths - 1));
      return BLOCKS[Math.min(8, Math.max(0, filled - row * 8))]!;
    })
    .join('')
    .trimEnd();
}

function xAxis(points: readonly Point[], width: number, gutter: number, xLabel: string): string[] {
  const [first, last] = [label(points[0]!.x), label(points.at(-1)!.x)];
  const blanks = ' '.repeat(Math.max(1, width - first.length - last.length));
  const indent = ' '.repeat(gutter + 2);
  return [
    `${' '.repeat(gutter)} └${'─'.repeat(width)}`,
    `${indent}${first}${blanks}${last} ${xLabel}`.trimEnd(),
  ];
}

/** The mean y of each of `width` equal parts of the x range. */
function resample(points: readonly Point[], width: number): number[] {
  const [from, to] = [points[0]!.x, points.at(-1)!.x];
  const sums = new Float64Array(width);
  const counts = new Int32Array(width);
  for (const { x, y } of points) {
    const column = Math.min(width - 1, Math.floor(((x - from) / (to - from || 1)) * width));
    sums[column]! += y;
    counts[column]!++;
  }
  const means = Array.from(sums, (sum, c) => (counts[c]! > 0 ? sum / counts[c]! : Number.NaN));
  return means.map((mean, c) => (Number.isNaN(mean) ? between(means, c) : mean));
}

/** Linear interpolation at an empty column; the ends hold the nearest value. */
function between(means: readonly number[], column: number): number {
  const left = means.findLastIndex((mean, c) => c < column && !Number.isNaN(mean));
  const right = means.findIndex((mean, c) => c > column && !Number.isNaN(mean));
  if (left < 0) return means[right]!;
  if (right < 0) return means[left]!;
  return means[left]! + ((means[right]! - means[left]!) * (column - left)) / (right - left);
}

const label = (value: number): string => String(Number(value.toPrecision(4)));
