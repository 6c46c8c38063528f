/** One figure of the paper beside ours. */
export interface Figure {
  name: string;
  unit: string;
  /** What the paper prints; null where it prints a curve or a band only. */
  theirs: number | null;
  ours: number;
  /** (ours - theirs) / theirs; null where there is nothing to compare with. */
  deviation: number | null;
  /** How far ours may lie from theirs, as a share; absent where it is only shown. */
  band?: number;
  /** Why it deviates, where that is more than 5 %. */
  cause?: string;
}

/** What the issue of a row is. */
export type RowVerdict = 'inside' | 'outside' | 'shown';

/** A drawing beside the rows, as a complete SVG document. */
export interface Chart {
  title: string;
  svg: string;
}

/** A table or figure of the paper, reproduced. */
export interface Reproduction {
  /** As in "ISCA table 3". */
  source: string;
  title: string;
  figures: Figure[];
  /** What differs from the paper's setting, and why. */
  notes: string[];
  charts?: Chart[];
}

/** @param theirs the paper's figure, null where it has none */
export const figure = (name: string, unit: string, theirs: number | null, ours: number): Figure => ({
  name,
  unit,
  theirs,
  ours,
  deviation: theirs === null ? null : theirs === 0 ? (ours === 0 ? 0 : null) : (ours - theirs) / theirs,
});

/** A figure that must stay within a band of the paper's. @param cause why, where it deviates by more than 5 % */
export const banded = (
  name: string,
  unit: string,
  theirs: number,
  ours: number,
  band: number,
  cause?: string,
): Figure => ({ ...figure(name, unit, theirs, ours), band, ...(cause === undefined ? {} : { cause }) });

export function verdictOf({ deviation, band }: Figure): RowVerdict {
  if (deviation === null || band === undefined) return 'shown';
  return Math.abs(deviation) <= band ? 'inside' : 'outside';
}
