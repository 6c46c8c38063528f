/** A chart of curves with bands as SVG text. */
import { axes, colour, frame, legend, type Place, px, svg, type Titles } from './svg.js';

/** A point of a curve; the band around it goes from `low` to `high`. */
export interface BandPoint {
  x: number;
  y: number;
  low: number;
  high: number;
}

export interface Curve {
  name: string;
  /** Ascending in x. */
  points: readonly BandPoint[];
}

export interface LineChart extends Titles {
  curves: readonly Curve[];
}

/** @returns a complete SVG document; points that are not finite are left out */
export function lineSvg(chart: LineChart): string {
  const curves = chart.curves.map(({ name, points }) => ({ name, points: points.filter(isFinitePoint) }));
  const all = curves.flatMap(({ points }) => points);
  const { x, y } = axes(
    all.map((point) => point.x),
    all.flatMap(({ low, high }) => [low, high]),
  );
  return svg([
    frame(chart, x, y),
    ...curves.map(({ points }, i) => band(points, x.at, y.at, colour(i))),
    ...curves.map(({ points }, i) => path(points, x.at, y.at, colour(i))),
    ...curves.map(({ name }, i) => legend(name, i)),
  ]);
}

const isFinitePoint = ({ x, y, low, high }: BandPoint): boolean => [x, y, low, high].every(Number.isFinite);

/** The area between `low` and `high`: there along the top, back along the bottom. */
function band(points: readonly BandPoint[], x: Place, y: Place, fill: string): string {
  const top = points.map((point) => `${px(x(point.x))},${px(y(point.high))}`);
  const bottom = points.map((point) => `${px(x(point.x))},${px(y(point.low))}`).reverse();
  return `<polygon points="${[...top, ...bottom].join(' ')}" fill="${fill}" fill-opacity="0.15"/>`;
}

function path(points: readonly BandPoint[], x: Place, y: Place, stroke: string): string {
  const corners = points.map((point) => `${px(x(point.x))},${px(y(point.y))}`).join(' ');
  return `<polyline points="${corners}" fill="none" stroke="${stroke}" stroke-width="2"/>`;
}
