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

const SMALL_EXCHANGE =
  'DeepEP itself stays below the links with two nodes, as its authors note; the simulation has only links';

/** Bars of two nodes are explained rather than met. */
export const plottedFigure7 = (): Reproduction => {
  const made = withBands(figure7(FIGURE_7_TOKENS), ({ name }) => (name.includes('16 GPUs') ? 0.35 : 0.1));
  const figures = made.figures.map((row) =>
    row.name.includes('16 GPUs') ? { ...row, cause: SMALL_EXCHANGE } : row,
  );
  const note = `${FIGURE_7_TOKENS} tokens a GPU in place of 4,096, so that the page takes no minutes; with 1,024 the bars are 5 % higher at 16 GPUs and 2 to 4 % at more`;
  return plotted({ ...made, figures, notes: [...made.notes, note] });
};

export const plottedFigure8 = (): Reproduction => plotted(figure8());

function withBands<R extends Reproduction>(made: R, band: (row: Figure) => number): R {
  const figures = made.figures.map((row) => (row.theirs === null ? row : { ...row, band: band(row) }));
  return { ...made, figures };
}

function plotted({ series, xLabel, yLabel, ...made }: PlottedReproduction): Reproduction {
  const svg = lineSvg({ title: made.title, xLabel, yLabel, curves: series });
  return { ...made, charts: [{ title: made.title, svg }] };
}
