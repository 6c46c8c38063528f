/**
 * Whether a sequence goes on with drafts, judged by its own last ones. Legend: a share of drafts that were right, c least share
 * that pays.
 */

/** Drafts between two verdicts. Assumed: the share of right ones is known to 0.09 then (standard deviation at a half). */
const TRIAL = 32;
/** Share of its time that a sequence may lose with trials that fail. Assumed. */
const TRIAL_LOSS = 0.03;
/** Tokens without drafts after a trial that failed, at least and at most. Assumed. */
const LEAST_PAUSE = 64;
const MOST_PAUSE = 4096;
/**
 * c where nothing is measured, or where the measured must not decide. Assumed: a second row and the module cost half a step of a model of experts
 * at batch 1.
 */
export const ASSUMED_LEAST_ACCEPTANCE = 0.5;

export class DraftTrial {
  private drafted = 0;
  private accepted = 0;
  /** Length from which on drafts are made again. */
  private pausedUntil = 0;

  /** Whether a sequence of so many tokens drafts. */
  active(length: number): boolean {
    return length >= this.pausedUntil;
  }

  /** Notes a draft of a sequence that has `length` tokens. @param leastAcceptance c */
  note(accepted: boolean, length: number, leastAcceptance: number): void {
    this.drafted++;
    if (accepted) this.accepted++;
    if (this.drafted < TRIAL) return;
    const lost = leastAcceptance - this.accepted / TRIAL;
    if (lost > 0) this.pausedUntil = length + pauseAfter(lost);
    this.drafted = this.accepted = 0;
  }
}

/** A draft too many costs c − a steps without one, in each of which a token would have come. */
const pauseAfter = (lost: number): number =>
  Math.min(MOST_PAUSE, Math.max(LEAST_PAUSE, Math.ceil((TRIAL * lost) / TRIAL_LOSS)));
