import { count, duration } from './units.js';

/** How far a piece of work is. */
export interface Stage {
  /** Units of work done. */
  done: number;
  /** Units in all; 0 while that is unknown. */
  total: number;
  /** What else to show, e.g. ["loss 3.214", "5.1 k tokens/s"]. */
  details?: readonly string[];
}

/** What long work tells about itself. */
export interface Progress {
  /** Shows `stage`; may be called as often as the work likes. */
  update(stage: Stage): void;
  /** Prints a line that stays. */
  note(line: string): void;
  /** Shows the last stage and ends the live line. */
  end(): void;
}

/** Where progress is shown: standard error, or a stand-in for tests. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** Redraws of the live line, and plain lines when piped, are at least so many seconds apart. */
const REDRAW_SECONDS = 0.1;
const LINE_SECONDS = 10;

/** Larger totals (bytes, as a rule) are shown rounded. */
const EXACT_BELOW = 1e6;

/** Characters of the bar. */
const BAR_WIDTH = 20;
/** Eighths of a character, filling from the left. */
const BAR_BLOCKS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'] as const;

const ERASE_LINE = '\r\x1b[K';

/**
 * Progress of one piece of work: on a terminal one live line (bar, count, details, time left), otherwise a plain
 * line every ten seconds and one at the end.
 */
export class ProgressReporter implements Progress {
  private first: { at: number; done: number } | undefined;
  private latest: Stage | undefined;
  private shownAt = Number.NEGATIVE_INFINITY;
  private shown: Stage | undefined;

  /**
   * @param label what is being done, e.g. "train"
   * @param now seconds of a clock that never goes back
   */
  constructor(
    private readonly label: string,
    private readonly stream: ProgressStream,
    private readonly now: () => number,
  ) {}

  update(stage: Stage): void {
    const now = this.now();
    this.first ??= { at: now, done: stage.done };
    this.latest = stage;
    if (now - this.shownAt >= (this.stream.isTTY ? REDRAW_SECONDS : LINE_SECONDS)) this.show(stage, now);
  }

  note(line: string): void {
    if (!this.stream.isTTY) {
      this.stream.write(`${line}\n`);
      return;
    }
    this.stream.write(`${ERASE_LINE}${line}\n`);
    if (this.shown) this.show(this.shown, this.shownAt);
  }

  end(): void {
    if (this.latest && this.latest !== this.shown) this.show(this.latest, this.now());
    if (this.shown && this.stream.isTTY) this.stream.write('\n');
    this.latest = this.shown = this.first = undefined;
  }

  private show(stage: Stage, now: number): void {
    this.shown = stage;
    this.shownAt = now;
    const fits = Math.max(1, (this.stream.columns ?? 80) - 1);
    if (this.stream.isTTY) this.stream.write(`${ERASE_LINE}${cut(this.line(stage, now, true), fits)}`);
    else this.stream.write(`${this.line(stage, now, false)}\n`);
  }

  private line(stage: Stage, now: number, live: boolean): string {
    const known = stage.total > 0;
    const spell = stage.total >= EXACT_BELOW ? count : String;
    const done = known ? `${spell(stage.done)}/${spell(stage.total)}` : `${stage.done}`;
    const parts = [done, ...(stage.details ?? [])];
    const left = this.secondsLeft(stage, now);
    if (left !== undefined) parts.push(`${duration(left)} left`);
    const head = live && known ? `${this.label} ${bar(stage.done / stage.total)}` : this.label;
    return `${head} ${parts.join(' · ')}`;
  }

  /** From the mean rate since the first update, so that a resumed run and a slow first step do not mislead. */
  private secondsLeft({ done, total }: Stage, now: number): number | undefined {
    if (!this.first || total === 0 || done >= total || done <= this.first.done) return undefined;
    const seconds = ((now - this.first.at) / (done - this.first.done)) * (total - done);
    return seconds < 1 ? undefined : Math.round(seconds);
  }
}

function bar(share: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * BAR_WIDTH * 8);
  return `▕${('█'.repeat(eighths >> 3) + BAR_BLOCKS[eighths & 7]!).padEnd(BAR_WIDTH)}▏`;
}

function cut(text: string, length: number): string {
  const characters = [...text];
  return characters.length <= length ? text : `${characters.slice(0, length - 1).join('')}…`;
}
