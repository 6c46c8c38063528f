import { UserError } from '../errors.js';
import { PRICE_BOOKS } from '../spec/prices.js';
import { bubbles } from './bubbles.js';
import {
  bandedTable3,
  bandedTable5,
  plottedFigure5,
  plottedFigure6,
  plottedFigure7,
  plottedFigure8,
} from './network.js';
import { recommendations } from './recommendations.js';
import type { Reproduction } from './row.js';
import { section43 } from './section-4-3.js';
import { section232, section233 } from './sections-2.js';
import { type StudySummary, studyClaims } from './studies.js';
import { table1 } from './table-1.js';
import { table2 } from './table-2.js';
import { table4, trainingCost } from './table-4.js';
import { type Predictions, thisMachine } from './this-machine.js';

/** What the reproduction of a part of the paper starts from. */
export interface PaperInput {
  /** Reports of studies that are committed. */
  studies: readonly StudySummary[];
  /** The last check of a calibration, of this machine or that which is committed. */
  predictions?: Predictions | undefined;
}

export interface PaperPart {
  id: string;
  /** How it is computed: by formula, event by event, or from runs of the engine. */
  how: 'estimate' | 'simulation' | 'run';
  make: (input: PaperInput) => Reproduction;
}

/** Everything that is recomputed, in the order of the paper. */
export const PAPER: readonly PaperPart[] = [
  { id: 'table1', how: 'estimate', make: table1 },
  { id: 'table2', how: 'estimate', make: table2 },
  { id: 'decode-limit', how: 'estimate', make: section232 },
  { id: 'mtp', how: 'run', make: ({ studies }) => section233(studies) },
  { id: 'studies', how: 'run', make: ({ studies }) => studyClaims(studies) },
  { id: 'node-limited', how: 'estimate', make: section43 },
  { id: 'table3', how: 'simulation', make: () => bandedTable3(PRICE_BOOKS['isca-2025']) },
  { id: 'table4', how: 'simulation', make: table4 },
  { id: 'table5', how: 'simulation', make: bandedTable5 },
  { id: 'figure5', how: 'simulation', make: plottedFigure5 },
  { id: 'figure6', how: 'simulation', make: plottedFigure6 },
  { id: 'figure7', how: 'simulation', make: plottedFigure7 },
  { id: 'figure8', how: 'simulation', make: plottedFigure8 },
  { id: 'bubbles', how: 'simulation', make: bubbles },
  { id: 'gpu-hours', how: 'simulation', make: trainingCost },
  { id: 'what-if', how: 'estimate', make: recommendations },
  { id: 'this-machine', how: 'run', make: ({ predictions }) => thisMachine(predictions) },
];

/** @throws UserError that lists the parts, where a name is none */
export function paperParts(only: readonly string[] | undefined): PaperPart[] {
  if (only === undefined) return [...PAPER];
  return only.map((id) => {
    const part = PAPER.find((one) => one.id === id);
    if (part) return part;
    throw new UserError(
      `the paper has no part "${id}"; take some of ${PAPER.map((one) => one.id).join(', ')}`,
    );
  });
}

export interface PaperResult extends Reproduction {
  id: string;
  how: PaperPart['how'];
}

export const makePart = ({ id, how, make }: PaperPart, input: PaperInput): PaperResult => ({
  id,
  how,
  ...make(input),
});
