/** A chart of labelled points as SVG text: one function from data to figure, for reports, files and the browser. */
import { axes, colour, frame, legend, type Place, px, svg, type Titles, text } from './svg.js';

export interface ScatterPoint {
  x: number;
  y: number;
  /** Written beside it; where it is empty, the point is one of a cloud and pale. */
  label: string;
}

export interface ScatterSeries {
  name: string;
  points: readonly ScatterPoint[];
}

export interface ScatterChart extends Titles {
  series: readonly ScatterSeries[];
}

/** A label moves down until it is at least so far from the labels above it, in pixels. */
const LABEL_HEIGHT = 12;
const LABEL_WIDTH = 90;

/** @returns a complete SVG document; points that are not finite are left out */
export function scatterSvg(chart: ScatterChart): string {
  const series = chart.series.map(({ name, points }) => ({ name, points: points.filter(isFinitePoint) }));
  const all = series.flatMap(({ points }) => points);
  const { x, y } = axes(
    all.map((point) => point.x),
    all.map((point) => point.y),
  );
  return svg([
    frame(chart, x, y),
    ...series.map(({ points }, i) => marks(points, x.at, y.at, colour(i))),
    labels(series, x.at, y.at),
    ...series.map(({ name }, i) => legend(name, i)),
  ]);
}

/** Letters stay readable above points. */
const HALO = 'stroke="#ffffff" stroke-width="3" paint-order="stroke"';

const isFinitePoint = ({ x, y }: ScatterPoint): boolean => Number.isFinite(x) && Number.isFinite(y);

const marks = (points: readonly ScatterPoint[], x: Place, y: Place, fill: string): string =>
  points
    .map(({ x: across, y: up, label }) => {
      const pale = label === '' ? ' fill-opacity="0.25"' : '';
      return `<circle cx="${px(x(across))}" cy="${px(y(up))}" r="4" fill="${fill}"${pale}/>`;
    })
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
    .filter(({ label }) => label !== '')
    .sort((a, b) => a.top - b.top);
  const placed: typeof wanted = [];
  for (const label of wanted) {
    for (const other of placed) {
      const near = Math.abs(other.left - label.left) < LABEL_WIDTH;
      if (near && label.top < other.top + LABEL_HEIGHT) label.top = other.top + LABEL_HEIGHT;
    }
    placed.push(label);
  }
  return placed
    .map(({ left, top, label, fill }) => text(left, top, label, `fill="${fill}" ${HALO}`))
    .join('\n');
}
