/**
 * Seeded pseudo-random numbers: xoshiro128** (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", ACM TOMS 2021), its 128-bit state filled by SplitMix64 as its authors advise.
 *
 * Plain integer arithmetic, so the same seed gives the same numbers on every machine. Weight initialisation,
 * document shuffling and sampling all draw from this one class. Not for cryptography.
 */

/** Everything needed to go on exactly where a generator stopped; plain JSON. */
export interface RandomState {
  /** The four 32-bit words of xoshiro128**, unsigned. */
  words: [number, number, number, number];
  /** The second normal deviate of the last pair, not yet handed out. */
  spareNormal: number | null;
}

const MASK64 = (1n << 64n) - 1n;

/** SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); constants as published by Vigna. Returns a generator of u64. */
function splitmix64(seed: bigint): () => bigint {
  let state = seed & MASK64;
  return () => {
    state = (state + 0x9e3779b97f4a7c15n) & MASK64;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK64;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK64;
    return z ^ (z >> 31n);
  };
}

/** FNV-1a, 64 bit, over the UTF-16 code units of a stream name (offset basis and prime as published). */
function hashName(name: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (let i = 0; i < name.length; i++) {
    hash = ((hash ^ BigInt(name.charCodeAt(i))) * 0x100000001b3n) & MASK64;
  }
  return hash;
}

function seedToBigInt(seed: number): bigint {
  if (!Number.isSafeInteger(seed)) throw new RangeError(`seed must be an integer within 2^53, got ${seed}`);
  return BigInt(seed);
}

/** A seeded generator; `new Random(7)` always yields the same sequence. */
export class Random {
  private a = 0;
  private b = 0;
  private c = 0;
  private d = 0;
  private spareNormal: number | null = null;

  /** @param seed any integer within ±2^53; a RangeError otherwise. */
  constructor(seed: number) {
    this.fill(seedToBigInt(seed));
  }

  /**
   * A generator for one named purpose, independent of the others under the same seed, e.g.
   * `Random.stream(seed, 'shuffle', epoch)` or `Random.stream(seed, 'init', parameterName)`.
   */
  static stream(seed: number, ...keys: (string | number)[]): Random {
    let mixed = seedToBigInt(seed);
    for (const key of keys) {
      const value = typeof key === 'string' ? hashName(key) : seedToBigInt(key);
      mixed = splitmix64(splitmix64(mixed)() ^ (value & MASK64))();
    }
    const random = new Random(0);
    random.fill(mixed);
    return random;
  }

  /** The generator that `state()` described. A RangeError if the words are not four u32, not all zero. */
  static fromState(state: RandomState): Random {
    const random = new Random(0);
    random.setState(state);
    return random;
  }

  /** A plain-JSON copy of the state. */
  state(): RandomState {
    const words = [this.a, this.b, this.c, this.d].map((word) => word >>> 0);
    return { words: words as RandomState['words'], spareNormal: this.spareNormal };
  }

  /** Goes on from `state`; throws a RangeError and changes nothing when it is not a valid state. */
  setState(state: RandomState): void {
    const { words, spareNormal } = state;
    const isWord = (word: number) => Number.isInteger(word) && word >= 0 && word <= 0xffffffff;
    if (!Array.isArray(words) || words.length !== 4 || !words.every(isWord) || words.every((w) => w === 0)) {
      throw new RangeError(
        `a random state needs four 32-bit words, not all zero; got ${JSON.stringify(words)}`,
      );
    }
    this.setWords(words);
    this.spareNormal = spareNormal ?? null;
  }

  /** The next 32 random bits as an unsigned integer: one step of xoshiro128**. */
  nextUint32(): number {
    const scrambled = Math.imul(rotl(Math.imul(this.b, 5), 7), 9) >>> 0;
    const shifted = this.b << 9;
    this.c ^= this.a;
    this.d ^= this.b;
    this.b ^= this.c;
    this.a ^= this.d;
    this.c ^= shifted;
    this.d = rotl(this.d, 11);
    return scrambled;
  }

  /** Uniform in [0, 1) with all 53 bits of a double: 27 high bits of one draw, 26 of the next. */
  uniform(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 0x4000000 + low) / 0x20000000000000;
  }

  /** A uniform integer in [0, n), 1 <= n <= 2^32, without modulo bias (draws past the last whole multiple are redone). */
  below(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 0x100000000) {
      throw new RangeError(`below(n) needs an integer n in 1..2^32, got ${n}`);
    }
    const limit = 0x100000000 - (0x100000000 % n);
    let draw = this.nextUint32();
    while (draw >= limit) draw = this.nextUint32();
    return draw % n;
  }

  /** A standard normal deviate (Box and Muller, 1958; basic form, the pair's second half kept for the next call). */
  normal(): number {
    if (this.spareNormal !== null) {
      const spare = this.spareNormal;
      this.spareNormal = null;
      return spare;
    }
    // 1 - uniform() lies in (0, 1], so the logarithm is finite.
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spareNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** Shuffles `items` in place (Fisher-Yates as in Durstenfeld, 1964) and returns them. */
  shuffle<T extends { length: number; [index: number]: unknown }>(items: T): T {
    const list = items as { [index: number]: unknown };
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const swapped = list[i];
      list[i] = list[j];
      list[j] = swapped;
    }
    return items;
  }

  private fill(seed: bigint): void {
    const next = splitmix64(seed);
    const [first, second] = [next(), next()];
    const half = (value: bigint) => Number(value & 0xffffffffn);
    // SplitMix64 is a bijection, so two successive outputs are never both zero.
    this.setWords([half(first), half(first >> 32n), half(second), half(second >> 32n)]);
  }

  private setWords(words: RandomState['words']): void {
    [this.a, this.b, this.c, this.d] = words.map((word) => word | 0) as RandomState['words'];
  }
}

/** Rotates a 32-bit word left. */
function rotl(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k));
}
