import type { Progress } from './progress.js';
import type { Ui } from './ui.js';

/** Shows work that goes through phases: a line of progress for each. */
export class Phases {
  private current: { label: string; progress: Progress } | undefined;

  constructor(private readonly ui: Ui) {}

  /** `done` of `total` steps of the phase `label`; `total` is 0 while it is unknown. */
  readonly report = (done: number, total: number, label: string): void => {
    if (this.current?.label !== label) {
      this.end();
      this.current = { label, progress: this.ui.progress(label) };
    }
    this.current!.progress.update({ done, total });
  };

  /** Ends the last phase. */
  end(): void {
    this.current?.progress.end();
    this.current = undefined;
  }
}
