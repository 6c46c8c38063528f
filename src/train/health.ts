/** Bad steps in a row after which the run goes back to its last checkpoint. */
const PATIENCE = 3;
/** Times a run may go back before it is given up. */
const ROLLBACKS = 3;

/** Watches for steps with values that are not finite. */
export class Health {
  private inARow = 0;
  private rollbacks = 0;

  /** @returns what the run is to do after a step */
  judge(finite: boolean): 'continue' | 'rollback' | 'fail' {
    if (finite) {
      this.inARow = 0;
      return 'continue';
    }
    if (++this.inARow < PATIENCE) return 'continue';
    this.inARow = 0;
    return ++this.rollbacks > ROLLBACKS ? 'fail' : 'rollback';
  }
}
