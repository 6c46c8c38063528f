import { UserError } from '../errors.js';
import type { SamplingOptions } from './engine.js';

/** Sampling options checked and completed. */
export interface Sampling {
  temperature: number;
  /** 0 keeps all. */
  topK: number;
  /** 1 keeps all. */
  topP: number;
  /** 0 keeps all. */
  minP: number;
  /** 1 changes nothing. */
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  logitBias: readonly (readonly [id: number, bias: number])[];
}

const NEUTRAL: Sampling = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
};

/** Accepted values, ends included; those of OpenAI's API where it has the option. */
const RANGES = {
  temperature: [0, 100],
  topK: [0, Number.MAX_SAFE_INTEGER],
  topP: [0, 1],
  minP: [0, 1],
  // 0 would divide by zero. 100, assumed: far beyond any use.
  repetitionPenalty: [0.01, 100],
  presencePenalty: [-2, 2],
  frequencyPenalty: [-2, 2],
} as const satisfies Partial<Record<keyof Sampling, readonly [number, number]>>;

/** Below this, a temperature takes the most likely token: logits divided by it would overflow FP32. Assumed. */
const COLDEST = 1e-4;
/** OpenAI's limits of a bias. */
const MAX_BIAS = 100;

/**
 * Checks options and fills in what is absent.
 * @throws UserError naming the option and its value
 */
export function resolveSampling(options: SamplingOptions, vocabulary: number): Sampling {
  const given = Object.fromEntries(
    Object.keys(RANGES).map((name) => [name, checked(name as keyof typeof RANGES, options)]),
  );
  if (options.topK !== undefined && !Number.isInteger(options.topK)) {
    throw new UserError(`topK is ${options.topK}: give a whole number, 0 keeps all tokens`);
  }
  if (options.seed !== undefined && !Number.isSafeInteger(options.seed)) {
    throw new UserError(`seed is ${options.seed}: give an integer within ±2^53`);
  }
  const sampling = { ...NEUTRAL, ...given, logitBias: biases(options.logitBias ?? {}, vocabulary) };
  if (sampling.temperature < COLDEST) sampling.temperature = 0;
  return sampling as Sampling;
}

function checked(name: keyof typeof RANGES, options: SamplingOptions): number {
  const value = options[name] ?? NEUTRAL[name];
  const [least, most] = RANGES[name];
  if (typeof value === 'number' && value >= least && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  throw new UserError(`${name} is ${value}: give a number ${range}`);
}

function biases(given: Readonly<Record<number, number>>, vocabulary: number): [number, number][] {
  return Object.entries(given).map(([key, bias]) => {
    const id = Number(key);
    if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
      throw new UserError(
        `logitBias: ${JSON.stringify(key)} is no token id; they go from 0 to ${vocabulary - 1}`,
      );
    }
    if (!(Math.abs(bias) <= MAX_BIAS)) {
      throw new UserError(
        `logitBias of token ${id} is ${bias}: give a number from −${MAX_BIAS} to ${MAX_BIAS}`,
      );
    }
    return [id, bias];
  });
}
