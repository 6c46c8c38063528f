/** Tables of shares as coloured cells: how busy links are. */
import { background, svg, text, WIDTH } from './svg.js';

export interface HeatPanel {
  title: string;
  rowLabel: string;
  columnLabel: string;
  /** [rows][columns] 0 to 1; null is left white. */
  cells: readonly (readonly (number | null)[])[];
}

/** Stops of the viridis map [Smith and van der Walt 2015], from dark to light, even steps. */
const STOPS = ['#440154', '#3b528b', '#21918c', '#5ec962', '#fde725'] as const;

const PANEL = 380;
const GAP = 30;
const TOP = 90;

/** @returns a complete SVG document: panels two abreast, a scale above them */
export function heatSvg(title: string, panels: readonly HeatPanel[]): string {
  const heights = panels.map(heightOf);
  const rowHeights = heights.flatMap((height, i) =>
    i % 2 === 0 ? [Math.max(height, heights[i + 1] ?? 0)] : [],
  );
  const height = TOP + rowHeights.reduce((sum, one) => sum + one + GAP, 0);
  const drawn = panels.map((panel, i) => {
    const above = rowHeights.slice(0, i >> 1).reduce((sum, one) => sum + one + GAP, 0);
    return panelSvg(panel, 40 + (i % 2) * (PANEL + GAP), TOP + above);
  });
  const head = text(WIDTH / 2, 24, title, 'text-anchor="middle" font-size="16"');
  return svg([background(height), head, scale(), ...drawn], height);
}

const columnsOf = ({ cells }: HeatPanel): number =>
  cells.reduce((most, { length }) => Math.max(most, length), 1);
const sideOf = (panel: HeatPanel): number =>
  Math.min(16, (PANEL - 20) / columnsOf(panel), PANEL / Math.max(1, panel.cells.length));
const heightOf = (panel: HeatPanel): number => 44 + sideOf(panel) * panel.cells.length;

function panelSvg(panel: HeatPanel, x: number, y: number): string {
  const side = sideOf(panel);
  const bottom = y + 12 + side * panel.cells.length;
  const values = panel.cells.flat().filter((cell) => cell !== null);
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const most = values.reduce((a, b) => Math.max(a, b), 0);
  const caption = `${panel.title}: mean ${percent(mean)}, most ${percent(most)}`;
  const cells = panel.cells.flatMap((row, r) =>
    row.flatMap((value, c) =>
      value === null ? [] : [cell(x + c * side, y + 8 + r * side, side, heatColour(value))],
    ),
  );
  return [
    text(x, y, caption),
    ...cells,
    text(
      x,
      bottom + 12,
      `across: ${panel.columnLabel}; down: ${panel.rowLabel}`,
      'font-size="10" fill="#555555"',
    ),
  ].join('');
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

const cell = (x: number, y: number, side: number, fill: string): string =>
  `<rect x="${px2(x)}" y="${px2(y)}" width="${px2(side * 0.96)}" height="${px2(side * 0.96)}" fill="${fill}"/>`;

const px2 = (value: number): string => String(Math.round(value * 100) / 100);

/** The colour of a share; beyond 0 and 1 as at these. */
export function heatColour(share: number): string {
  const at = Math.max(0, Math.min(1, share)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  const channel = (stop: string, i: number) => Number.parseInt(stop.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => {
    const [a, b] = [channel(STOPS[low]!, i), channel(STOPS[low + 1]!, i)];
    return Math.round(a + (at - low) * (b - a))
      .toString(16)
      .padStart(2, '0');
  });
  return `#${mixed.join('')}`;
}

function scale(): string {
  const [x, y, width] = [WIDTH / 2 - 120, 40, 240];
  const steps = Array.from({ length: 48 }, (_, i) =>
    cell(x + (i * width) / 48, y, width / 48 / 0.96, heatColour(i / 47)).replace(
      /height="[^"]*"/,
      'height="10"',
    ),
  );
  return [
    ...steps,
    text(x, y + 24, '0 %', 'text-anchor="middle" font-size="10"'),
    text(x + width, y + 24, '100 %', 'text-anchor="middle" font-size="10"'),
    text(WIDTH / 2, y + 24, 'of a link’s rate', 'text-anchor="middle" font-size="10"'),
  ].join('');
}
