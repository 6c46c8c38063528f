/** A network as SVG: switches in rows by layer, endpoints as numbers under their leaves. */
import { background, colour, px, svg, text, WIDTH } from './svg.js';

/** Rows of boxes, from the bottom up, and bundles of cables between them; a colour is a plane's number. */
export interface TopologyDrawing {
  rows: { label: string; boxes: { label: string; colour: number }[] }[];
  bundles: {
    from: [row: number, box: number];
    to: [row: number, box: number];
    cables: number;
    colour: number;
  }[];
}

const ROW_HEIGHT = 150;
const SIDE = 30;
/** More cables than this are drawn fainter, so that the whole stays readable. */
const SOLID = 200;

/** @returns a complete SVG document */
export function topologySvg(title: string, { rows, bundles }: TopologyDrawing): string {
  const height = 80 + rows.length * ROW_HEIGHT;
  const x = ([row, box]: readonly [number, number]) =>
    SIDE + ((box + 0.5) * (WIDTH - 2 * SIDE)) / rows[row]!.boxes.length;
  const y = (row: number) => height - 60 - row * ROW_HEIGHT;
  const opacity = Math.max(0.04, Math.min(0.8, SOLID / Math.max(1, bundles.length)));
  const lines = bundles.map(({ from, to, cables, colour: plane }) => {
    const [x1, y1, x2, y2] = [x(from), y(from[0]), x(to), y(to[0])].map(px);
    const stroke = `stroke="${colour(plane)}" stroke-opacity="${opacity}" stroke-width="${Math.min(3, Math.sqrt(cables))}"`;
    // Switches of one row are joined in an arc above them.
    const middle = px((x(from) + x(to)) / 2);
    const lift = px(y(from[0]) - Math.min(100, Math.abs(x(from) - x(to)) / 2));
    return from[0] === to[0]
      ? `<path d="M${x1} ${y1} Q${middle} ${lift} ${x2} ${y2}" fill="none" ${stroke}/>`
      : `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${stroke}/>`;
  });
  const boxes = rows.flatMap((row, r) => [
    text(SIDE, y(r) - 20, row.label, 'fill="#555555"'),
    ...row.boxes.map((box, b) => boxOf(x([r, b]), y(r), (WIDTH - 2 * SIDE) / row.boxes.length, box)),
  ]);
  return svg(
    [
      background(height),
      text(WIDTH / 2, 26, title, 'text-anchor="middle" font-size="16"'),
      ...lines,
      ...boxes,
    ],
    height,
  );
}

function boxOf(
  x: number,
  y: number,
  space: number,
  { label, colour: plane }: { label: string; colour: number },
): string {
  const side = Math.max(2, Math.min(24, space * 0.8));
  const box = `<rect x="${px(x - side / 2)}" y="${px(y - 7)}" width="${px(side)}" height="14" fill="${colour(plane)}"/>`;
  return space >= 46 && label !== ''
    ? box + text(x, y + 22, label, 'text-anchor="middle" font-size="10"')
    : box;
}
