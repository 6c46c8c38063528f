import { describe, expect, it } from 'vitest';
import { Random, type RandomState } from '../../src/numerics/random.js';

const take = (count: number, draw: () => number) => Array.from({ length: count }, draw);

describe('Random', () => {
  it('gives the published outputs of xoshiro128** from the state 1, 2, 3, 4', () => {
    // The test vector of the reference implementation 1.1, as rand_xoshiro (Rust) prints it.
    const random = Random.fromState({ words: [1, 2, 3, 4], spareNormal: null });
    expect(take(10, () => random.nextUint32())).toEqual([
      11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
    ]);
  });

  it('fills its state with the published outputs of SplitMix64 for seed 1234567', () => {
    const [first, second] = [6457827717110365317n, 3203168211198807973n];
    const words = [first, first >> 32n, second, second >> 32n].map((value) => Number(value & 0xffffffffn));
    expect(new Random(1234567).state().words).toEqual(words);
  });

  it('goes on from a state that went through JSON, in the middle of a normal pair', () => {
    const random = new Random(-5);
    random.normal();
    const copy = Random.fromState(JSON.parse(JSON.stringify(random.state())) as RandomState);
    expect(take(9, () => copy.normal())).toEqual(take(9, () => random.normal()));
    expect(copy.state()).toEqual(random.state());
  });

  it('keeps streams of one seed apart, and reproduces each', () => {
    const first = (random: Random) => random.nextUint32();
    const keys = [['a'], ['b'], ['a', 0], ['a', 1], [0], [1]];
    const draws = keys.map((key) => first(Random.stream(3, ...key)));
    expect(new Set([...draws, first(new Random(3))]).size).toBe(keys.length + 1);
    expect(first(Random.stream(3, 'a', 1))).toBe(draws[3]);
    expect(first(Random.stream(4, 'a', 1))).not.toBe(draws[3]);
  });

  it('draws uniforms in [0, 1) and normals with the right moments', () => {
    const random = new Random(11);
    const count = 200_000;
    const uniforms = take(count, () => random.uniform());
    expect(Math.min(...uniforms.slice(0, 1000))).toBeGreaterThanOrEqual(0);
    expect(uniforms.every((value) => value < 1)).toBe(true);
    const normals = take(count, () => random.normal());
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    // Five standard errors of each estimate: sqrt(1/12/n), 1/sqrt(n), sqrt(2/n), sqrt(96/n).
    expect(Math.abs(mean(uniforms) - 0.5)).toBeLessThan(5 * Math.sqrt(1 / 12 / count));
    expect(Math.abs(mean(normals))).toBeLessThan(5 / Math.sqrt(count));
    expect(Math.abs(mean(normals.map((x) => x * x)) - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
    expect(Math.abs(mean(normals.map((x) => x ** 4)) - 3)).toBeLessThan(5 * Math.sqrt(96 / count));
  });

  it('draws below(n) evenly, and from the whole 32-bit range', () => {
    const random = new Random(2);
    const counts = new Array<number>(7).fill(0);
    for (let i = 0; i < 70_000; i++) counts[random.below(7)]++;
    // Five standard deviations of a binomial with n = 70000, p = 1/7.
    for (const count of counts)
      expect(Math.abs(count - 10_000)).toBeLessThan(5 * Math.sqrt(10_000 * (6 / 7)));
    expect(random.below(1)).toBe(0);
    expect(random.below(2 ** 32)).toBeGreaterThanOrEqual(0);
  });

  it('shuffles every permutation of three about equally often, typed arrays too', () => {
    const random = new Random(9);
    const seen = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const key = random.shuffle(Int32Array.from([0, 1, 2])).join('');
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    expect(seen.size).toBe(6);
    for (const count of seen.values())
      expect(Math.abs(count - 1000)).toBeLessThan(5 * Math.sqrt(1000 * (5 / 6)));
  });

  it('refuses bad seeds, bounds and states', () => {
    expect(() => new Random(0.5)).toThrow(/seed must be an integer/);
    expect(() => new Random(2 ** 53)).toThrow(RangeError);
    expect(() => new Random(1).below(0)).toThrow(/1\.\.2\^32/);
    const bad = [[0, 0, 0, 0], [1, 2, 3], [1, 2, 3, -1], null];
    for (const words of bad) {
      const state = { words, spareNormal: null } as unknown as RandomState;
      expect(() => Random.fromState(state)).toThrow(/four 32-bit words/);
    }
  });
});
