/** Time and bandwidth against size, on logarithmic axes. */
import { lineSvg } from './lines.js';
import { binaryBytes, si } from './units.js';

/** A scenario's points, by rising size. */
export interface SizeCurve {
  name: string;
  points: readonly { bytes: number; seconds: number; busBytesPerSecond: number }[];
}

const point = (x: number, y: number) => ({ x, y, low: y, high: y });
const sizes = { xLabel: 'size', xText: (log2: number) => binaryBytes(2 ** log2) };

/** Time on a logarithmic axis. */
export const latencySvg = (title: string, curves: readonly SizeCurve[]): string =>
  lineSvg({
    title,
    ...sizes,
    yLabel: 'time',
    yText: (log10) => si(10 ** log10, 's'),
    curves: curves.map(({ name, points }) => ({
      name,
      points: points.map(({ bytes, seconds }) => point(Math.log2(bytes), Math.log10(seconds))),
    })),
  });

export const bandwidthSvg = (title: string, curves: readonly SizeCurve[]): string =>
  lineSvg({
    title,
    ...sizes,
    yLabel: 'bus bandwidth, GB/s',
    curves: curves.map(({ name, points }) => ({
      name,
      points: points.map(({ bytes, busBytesPerSecond }) => point(Math.log2(bytes), busBytesPerSecond / 1e9)),
    })),
  });
