import { median } from './median.js';

/**
 * What drafting costs, as running steps show: whole decoding steps without drafts and with one for every sequence, MTP module
 * and sampling included, by the number of sequences.
 *
 * A step with drafts gives each sequence 1 + a tokens, where a is the share of drafts that are right, so drafting pays where
 *
 *     1 + a > seconds with drafts / seconds without
 *
 * This depends on the model (how many layers the module is beside, how many more experts a second row wakes up), on its format, the
 * context and the machine, so it is not assumed but measured. Timing never changes a greedy text, and sequences whose
 * random numbers are pinned by a seed are judged without it (`sequence.ts`).
 */
export class DraftCosts {
  /** By the power of two below the number of sequences. */
  private readonly bySize = new Map<number, Measured>();

  /** Whether the next step should do without drafts, because what that costs is not known (any more). */
  needsPlain(sequences: number): boolean {
    const { plain, sincePlain } = this.measured(sequences);
    return plain.length < LEAST_STEPS || sincePlain >= PLAIN_EVERY;
  }

  /** Notes a decoding step of so many sequences, all with drafts or all without. */
  note(sequences: number, drafted: boolean, seconds: number): void {
    const measured = this.measured(sequences);
    const steps = drafted ? measured.drafted : measured.plain;
    steps.push(seconds / sequences);
    if (steps.length > STEPS) steps.shift();
    measured.sincePlain = drafted ? measured.sincePlain + 1 : 0;
  }

  /** Share of right drafts from which on drafting pays, undefined where that is not known yet. */
  leastAcceptance(sequences: number): number | undefined {
    const { plain, drafted } = this.measured(sequences);
    if (Math.min(plain.length, drafted.length) < LEAST_STEPS) return undefined;
    return median(drafted) / median(plain) - 1;
  }

  private measured(sequences: number): Measured {
    const size = Math.floor(Math.log2(sequences));
    const known = this.bySize.get(size) ?? { plain: [], drafted: [], sincePlain: 0 };
    this.bySize.set(size, known);
    return known;
  }
}

interface Measured {
  /** Seconds per sequence of the last steps. */
  plain: number[];
  drafted: number[];
  sincePlain: number;
}

/** Steps that the median is of, and those that it is believed from. Assumed: a median of four forgets one disturbed step. */
const STEPS = 16;
const LEAST_STEPS = 4;
/** Steps with drafts before one without. Assumed: that one costs half a step at most, under a hundredth of the time. */
const PLAIN_EVERY = 64;
