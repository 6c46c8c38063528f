/** Student's t distribution with whole degrees of freedom, by the finite sums of Abramowitz and Stegun, §26.7. */

/** P(|T| ≤ t) [26.7.3, 26.7.4]. @param t at least 0 @param df at least 1 */
export function centralProbability(t: number, df: number): number {
  const angle = Math.atan(t / Math.sqrt(df));
  if (df === 1) return (2 / Math.PI) * angle;
  const cosine2 = Math.cos(angle) ** 2;
  const odd = df % 2 === 1;
  // Terms with the powers 1, 3, 5, … of the cosine and the factors 2/3, 4/5, … where df is odd, or the powers
  // 0, 2, 4, … and the factors 1/2, 3/4, … where it is even, up to the power df − 2.
  let term = odd ? Math.cos(angle) : 1;
  let sum = term;
  for (let power = odd ? 3 : 2; power <= df - 2; power += 2) {
    term *= ((power - 1) / power) * cosine2;
    sum += term;
  }
  return odd ? (2 / Math.PI) * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum;
}

/** The t with P(|T| ≤ t) = `probability`, by bisection. @param probability above 0, below 1 */
export function twoSidedQuantile(probability: number, df: number): number {
  let high = 1;
  while (centralProbability(high, df) < probability) high *= 2;
  let low = 0;
  // Each halving gains a bit; doubles have 53.
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (centralProbability(middle, df) < probability) low = middle;
    else high = middle;
  }
  return high;
}

/** A mean with its confidence interval. */
export interface Interval {
  /** Values averaged. */
  n: number;
  mean: number;
  /** Null where there are fewer than two values. */
  low: number | null;
  high: number | null;
}

/**
 * Student's interval of the mean of independent, normally distributed values.
 * @param values at least one
 */
export function meanInterval(values: readonly number[], confidence: number): Interval {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return { n, mean, low: null, high: null };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  const half = twoSidedQuantile(confidence, n - 1) * Math.sqrt(variance / n);
  return { n, mean, low: mean - half, high: mean + half };
}
