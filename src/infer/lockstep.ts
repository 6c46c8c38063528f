import type { Team } from '../expert/team.js';
import type { StoredRunner } from './model-runner.js';
import type { ModelRunner, StepBatch, StepResult } from './runner.js';
import type { Sharding } from './sharding.js';

/**
 * A runner whose passes are those of all ranks: who makes none meanwhile still takes part with its experts. What fails in a
 * pass has left the others waiting, so that all ranks have to end.
 */
export class LockstepRunner implements ModelRunner {
  readonly config;
  readonly weightFormat;
  readonly weightBytes;
  readonly cache;
  readonly draftDepth;
  private stepped = false;
  private drafted = false;
  private failure: { cause: unknown } | undefined;

  constructor(
    private readonly inner: StoredRunner,
    private readonly team: Team,
    private readonly sharding: Sharding,
  ) {
    this.config = inner.config;
    this.weightFormat = inner.weightFormat;
    this.weightBytes = inner.weightBytes;
    this.cache = inner.cache;
    this.draftDepth = inner.draftDepth;
  }

  /** One step of all ranks, collective. @param step of this rank's sequences, which may make one pass and one draft @throws what ends all ranks */
  round(step: () => void): void {
    this.stepped = this.drafted = false;
    step();
    if (this.failure) throw this.failure.cause;
    if (!this.stepped) this.inner.accompany(false);
    if (this.draftDepth > 0 && !this.drafted && this.team.any(false)) this.inner.accompany(true);
    this.sharding.passed();
  }

  step(batch: StepBatch): StepResult {
    this.stepped = true;
    return this.noting(() => this.inner.step(batch));
  }

  draft(batch: StepBatch, hidden: StepResult['hidden']): StepResult {
    this.drafted = true;
    return this.noting(() => {
      this.team.any(true);
      return this.inner.draft(batch, hidden);
    });
  }

  residentWeightBytes(): number {
    return this.inner.residentWeightBytes();
  }

  copyPage(from: number, to: number): void {
    this.inner.copyPage(from, to);
  }

  close(): void {
    this.inner.close();
  }

  private noting<T>(pass: () => T): T {
    try {
      return pass();
    } catch (cause) {
      this.failure = { cause };
      throw cause;
    }
  }
}
