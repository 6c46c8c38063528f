import { lineSvg } from '../report/lines.js';
import type { Prices } from '../spec/prices.js';
import { figure5, figure6, figure7, figure8, type PlottedReproduction, table5 } from './network-figures.js';
import type { Figure, Reproduction } from './row.js';
import { table3 } from './table-3.js';

/** The network's tables and figures with their bands, causes and curves. */

/** Counts are exact; prices of parts are not in the paper and explain the totals to within 2 %. */
export const bandedTable3 = (prices: Prices): Reproduction => withBands(table3(prices), () => 0.02);

export const bandedTable5 = (): Reproduction => withBands(table5(), () => 0.02);

/** "Equal", and ±1.5 % for latencies [ISCA §5.1]. */
export const plottedFigure5 = (): Reproduction => plotted(withBands(figure5(), () => 0.015));
export const plottedFigure6 = (): Reproduction => plotted(withBands(figure6(), () => 0.015));

/** Tokens a GPU in place of 4,096: a page should take no minutes. */
const FIGURE_7_TOKENS = 256;

/** Within 15 % of the bars, as DeepEP's kernels are not simulated, only their links. */
export const plottedFigure7 = (): Reproduction => plotted(withBands(figure7(FIGURE_7_TOKENS), () => 0.15));

export const plottedFigure8 = (): Reproduction => plotted(figure8());

function withBands<R extends Reproduction>(made: R, band: (row: Figure) => number): R {
  const figures = made.figures.map((row) => (row.theirs === null ? row : { ...row, band: band(row) }));
  return { ...made, figures };
}

function plotted({ series, xLabel, yLabel, xText, yText, ...made }: PlottedReproduction): Reproduction {
  const texts = { ...(xText ? { xText } : {}), ...(yText ? { yText } : {}) };
  const svg = lineSvg({ title: made.title, xLabel, yLabel, ...texts, curves: series });
  return { ...made, charts: [{ title: made.title, svg }] };
}
