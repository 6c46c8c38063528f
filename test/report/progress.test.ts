import { describe, expect, it } from 'vitest';
import { ProgressReporter } from '../../src/report/progress.js';

/** A stream that keeps what it is given, and a clock that the test sets. */
function setup(isTTY: boolean, columns = 100) {
  const written: string[] = [];
  const clock = { seconds: 0 };
  const stream = { isTTY, columns, write: (text: string) => written.push(text) };
  return { written, clock, progress: new ProgressReporter('train', stream, () => clock.seconds) };
}

describe('ProgressReporter, piped', () => {
  it('writes a plain line at once, then every ten seconds, then the last', () => {
    const { written, clock, progress } = setup(false);
    for (let step = 1; step <= 25; step++) {
      clock.seconds = step;
      progress.update({ done: step, total: 100, details: [`loss ${step}`] });
    }
    progress.end();
    expect(written).toEqual([
      'train 1/100 · loss 1\n',
      'train 11/100 · loss 11 · 1 min 29 s left\n',
      'train 21/100 · loss 21 · 1 min 19 s left\n',
      'train 25/100 · loss 25 · 1 min 15 s left\n',
    ]);
  });

  it('counts the time left from where a resumed run began', () => {
    const { written, clock, progress } = setup(false);
    progress.update({ done: 90, total: 100 });
    clock.seconds = 20;
    progress.update({ done: 95, total: 100 });
    expect(written[1]).toBe('train 95/100 · 20 s left\n');
  });
});

describe('large totals', () => {
  it('are rounded', () => {
    const { written, progress } = setup(false);
    progress.update({ done: 8356, total: 10_761_413 });
    expect(written).toEqual(['train 8.36 k/10.8 M\n']);
  });
});

describe('ProgressReporter, on a terminal', () => {
  it('redraws one line, not more than ten times a second', () => {
    const { written, clock, progress } = setup(true);
    progress.update({ done: 1, total: 4 });
    progress.update({ done: 2, total: 4 });
    clock.seconds = 10;
    progress.update({ done: 3, total: 4 });
    progress.end();
    expect(written).toEqual([
      '\r\x1b[Ktrain ▕█████               ▏ 1/4',
      '\r\x1b[Ktrain ▕███████████████     ▏ 3/4 · 5 s left',
      '\n',
    ]);
  });

  it('prints a note above the live line', () => {
    const { written, progress } = setup(true);
    progress.update({ done: 1, total: 0 });
    progress.note('saved');
    expect(written).toEqual(['\r\x1b[Ktrain 1', '\r\x1b[Ksaved\n', '\r\x1b[Ktrain 1']);
  });

  it('never wraps', () => {
    const { written, progress } = setup(true, 12);
    progress.update({ done: 1, total: 0, details: ['a long detail'] });
    expect(written[0]).toBe('\r\x1b[Ktrain 1 · …');
  });
});
