import type { Random } from './random.js';

/** How a magnitude, counted in steps of the format at hand, becomes a whole number of them. */
export type Rounding = (steps: number) => number;

/** Adding and subtracting 2^52 rounds a non-negative double below 2^51 to an integer, ties to even. */
const ROUND = 2 ** 52;

/** To the nearest, ties to the even number. */
export const nearestEven: Rounding = (steps) => steps + ROUND - ROUND;

/** Towards zero. */
export const truncate: Rounding = Math.floor;

/** Up with the probability of the fraction that would be lost, so that the expectation is the value itself. */
export const stochastic =
  (random: Random): Rounding =>
  (steps) =>
    Math.floor(steps + random.uniform());
