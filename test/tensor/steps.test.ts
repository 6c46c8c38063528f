import { describe, expect, it } from 'vitest';
import { inTurn, type Steps, toEnd } from '../../src/tensor/steps.js';

/** Notes its name in `log` at each step. */
function* walker(log: string[], name: string, steps: number): Steps<string> {
  try {
    for (let i = 0; i < steps; i++) {
      log.push(name);
      yield;
    }
    return name.toUpperCase();
  } finally {
    log.push(`${name} ends`);
  }
}

describe('steps', () => {
  it('are advanced in turn until the last has ended', () => {
    const log: string[] = [];
    expect(inTurn([walker(log, 'a', 2), walker(log, 'b', 3)])).toEqual(['A', 'B']);
    expect(log).toEqual(['a', 'b', 'a', 'b', 'a ends', 'b', 'b ends']);
    expect(toEnd(walker(log, 'c', 1))).toBe('C');
  });

  it('let go of what they hold where one of them fails', () => {
    const log: string[] = [];
    const failing = (function* (): Steps<string> {
      yield;
      throw new Error('lost');
    })();
    expect(() => inTurn([walker(log, 'a', 9), failing])).toThrow('lost');
    expect(log).toEqual(['a', 'a', 'a ends']);
  });
});
