/** The middle of an odd number of values, the upper one of the two middle ones else. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
