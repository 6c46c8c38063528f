/** One figure of the paper beside ours. */
export interface Figure {
  name: string;
  unit: string;
  /** What the paper prints; null where it prints a curve or a band only. */
  theirs: number | null;
  ours: number;
  /** (ours - theirs) / theirs; null where there is nothing to compare with. */
  deviation: number | null;
}

/** A table or figure of the paper, reproduced. */
export interface Reproduction {
  /** As in "ISCA table 3". */
  source: string;
  title: string;
  figures: Figure[];
  /** What differs from the paper's setting, and why. */
  notes: string[];
}

/** @param theirs the paper's figure, null where it has none */
export const figure = (name: string, unit: string, theirs: number | null, ours: number): Figure => ({
  name,
  unit,
  theirs,
  ours,
  deviation: theirs === null ? null : theirs === 0 ? (ours === 0 ? 0 : null) : (ours - theirs) / theirs,
});
