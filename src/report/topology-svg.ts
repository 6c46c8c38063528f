/** A network as SVG: nodes at the bottom, switches in rows by layer above them. */
import { background, colour, px, svg, text, WIDTH } from './svg.js';

interface Box {
  label: string;
  colour: number;
  /** Colours of the parts that it has. */
  parts: readonly number[];
}

interface End {
  row: number;
  box: number;
  part?: number;
}

/** Rows of boxes, from the bottom up, and bundles of cables between them; a colour is a plane's number. */
export interface TopologyDrawing {
  rows: readonly { label: string; boxes: readonly Box[] }[];
  bundles: readonly { from: End; to: End; cables: number; colour: number }[];
  note: string;
}

const ROW_HEIGHT = 170;
const BOX_HEIGHT = 16;
const ARC_HEIGHT = 50;
const SIDE = 30;
/** More bundles between two rows than this are drawn fainter, so that the whole stays readable. */
const SOLID = 60;

/** @returns a complete SVG document */
export function topologySvg(title: string, drawing: TopologyDrawing): string {
  const { rows, bundles, note } = drawing;
  // Rows whose own boxes are joined have arcs above them.
  const arched = new Set(bundles.flatMap(({ from, to }) => (from.row === to.row ? [from.row] : [])));
  const height = 120 + (rows.length - 1) * ROW_HEIGHT + (arched.has(rows.length - 1) ? ARC_HEIGHT : 0);
  const layout = new Layout(rows, height);
  const crowd = new Map<string, number>();
  const between = ({ from, to }: TopologyDrawing['bundles'][number]) => `${from.row} ${to.row}`;
  for (const bundle of bundles) crowd.set(between(bundle), (crowd.get(between(bundle)) ?? 0) + 1);
  const lines = bundles.map((bundle) => {
    const opacity = Math.max(0.03, Math.min(0.8, SOLID / crowd.get(between(bundle))!));
    const width = Math.min(3, Math.sqrt(bundle.cables));
    const stroke = `stroke="${colour(bundle.colour)}" stroke-opacity="${px2(opacity)}" stroke-width="${px(width)}"`;
    return bundleOf(layout, bundle, stroke);
  });
  const boxes = rows.flatMap((row, r) => [
    label(layout.y(r) - (arched.has(r) ? ARC_HEIGHT : 0), row.label, r),
    ...row.boxes.map((box, b) => boxOf(layout, r, b, box)),
  ]);
  const parts = [background(height), text(WIDTH / 2, 24, title, 'text-anchor="middle" font-size="16"')];
  if (note !== '') parts.push(text(WIDTH - SIDE, 44, note, 'text-anchor="end" fill="#555555"'));
  return svg([...parts, ...lines, ...boxes], height);
}

const px2 = (value: number): string => String(Math.round(value * 100) / 100);

/** Where things are. */
class Layout {
  constructor(
    private readonly rows: TopologyDrawing['rows'],
    private readonly height: number,
  ) {}

  /** Space of a box of a row. */
  space(row: number): number {
    return (WIDTH - 2 * SIDE) / this.rows[row]!.boxes.length;
  }

  /** How wide boxes of a row are drawn. */
  side(row: number): number {
    const { boxes } = this.rows[row]!;
    const most = boxes.some(({ parts }) => parts.length > 1) ? 130 : 28;
    return Math.max(1, Math.min(most, this.space(row) * 0.84));
  }

  x({ row, box, part }: End): number {
    const middle = SIDE + (box + 0.5) * this.space(row);
    const parts = this.rows[row]!.boxes[box]!.parts.length;
    return part === undefined || parts === 0
      ? middle
      : middle + ((part + 0.5) / parts - 0.5) * this.side(row);
  }

  y(row: number): number {
    return this.height - 50 - row * ROW_HEIGHT;
  }
}

function bundleOf(layout: Layout, { from, to }: TopologyDrawing['bundles'][number], stroke: string): string {
  const [x1, x2] = [layout.x(from), layout.x(to)];
  const [y1, y2] = [layout.y(from.row), layout.y(to.row)];
  if (from.row !== to.row) {
    const [a, b] = [y1 - BOX_HEIGHT / 2, y2 + BOX_HEIGHT / 2];
    return `<line x1="${px(x1)}" y1="${px(a)}" x2="${px(x2)}" y2="${px(b)}" ${stroke}/>`;
  }
  // Switches of one row are joined in an arc above them.
  const lift = y1 - Math.min(2 * ARC_HEIGHT - 10, 12 + Math.abs(x1 - x2) / 3);
  return `<path d="M${px(x1)} ${px(y1)} Q${px((x1 + x2) / 2)} ${px(lift)} ${px(x2)} ${px(y2)}" fill="none" ${stroke}/>`;
}

function boxOf(layout: Layout, row: number, box: number, { label: name, colour: plane, parts }: Box): string {
  const side = layout.side(row);
  const [x, y] = [layout.x({ row, box }) - side / 2, layout.y(row) - BOX_HEIGHT / 2];
  const each = side / Math.max(1, parts.length);
  const filled = parts.length === 0 ? [rect(x, y, side, colour(plane))] : [];
  const squares = parts.map((part, i) => rect(x + i * each, y, Math.max(0.3, each * 0.86), colour(part)));
  const named = name !== '' && layout.space(row) >= 7 * name.length + 4;
  const below = y + BOX_HEIGHT + 13;
  const caption = named ? [text(x + side / 2, below, name, 'text-anchor="middle" font-size="10"')] : [];
  return [...filled, ...squares, ...caption].join('');
}

const rect = (x: number, y: number, width: number, fill: string): string =>
  `<rect x="${px2(x)}" y="${px(y)}" width="${px2(width)}" height="${BOX_HEIGHT}" fill="${fill}"/>`;

/** On white, as lines pass behind it; the lowest row has room under it. */
function label(y: number, content: string, row: number): string {
  const at = row === 0 ? y + 38 : y - 16;
  const back = `<rect x="${SIDE - 3}" y="${px(at - 12)}" width="${6.4 * content.length + 6}" height="16" fill="#ffffff" fill-opacity="0.85"/>`;
  return back + text(SIDE, at, content, 'fill="#333333"');
}
