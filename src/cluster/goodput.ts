/** What a training job loses to failures [ISCA §6.1]. */
export interface FailureModel {
  /** Mean time between failures that end the job, seconds. */
  mtbfSeconds: number;
  /** To write a checkpoint, and to be at work again after a failure. */
  checkpointSeconds: number;
  restartSeconds: number;
  /** Work between checkpoints. */
  intervalSeconds: number;
}

/**
 * The share of time that becomes progress, failures coming at random: work of an interval over the mean time that it takes,
 * (M + R)(e^((T + C)/M) - 1) [Daly 2006, equation 12, with M the job's mean time between failures].
 */
export function goodput({
  mtbfSeconds: mtbf,
  checkpointSeconds: c,
  restartSeconds: r,
  intervalSeconds: t,
}: FailureModel): number {
  return mtbf === Infinity ? t / (t + c) : t / ((mtbf + r) * Math.expm1((t + c) / mtbf));
}

/** The interval of greatest goodput to second order: √(2CM) less the checkpoint itself [Young 1974; Daly 2006]. */
export function bestInterval({
  mtbfSeconds: mtbf,
  checkpointSeconds: c,
}: Omit<FailureModel, 'intervalSeconds'>): number {
  return c >= mtbf / 2 ? mtbf : Math.sqrt(2 * c * mtbf) - c;
}
