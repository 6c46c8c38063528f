import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelSummary } from '../../src/model/summary.js';
import type { TrainResult } from '../../src/train/run.js';
import { goldenPath } from '../text/goldens.js';
import { fathom, fathomJson } from './run.js';

/** The smallest run that has everything: two steps of `tiny` on a page of text. */
const SETTINGS = {
  model: 'tiny',
  steps: 4,
  batchSequences: 2,
  sequenceLength: 16,
  learningRate: 1e-3,
  warmupSteps: 1,
  validateEvery: 4,
  validationBatches: 1,
  checkpointEvery: 2,
  data: { validationFraction: 0.2 },
};
const DATA = ['--data', goldenPath('sample.txt')];

/** The backend that is there without a compiler. */
const ENGINE = ['--backend', 'reference'];

let folder: string;
let run: string;
let config: string;
let trained: TrainResult;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-train-'));
  run = path.join(folder, 'run');
  config = path.join(folder, 'two-steps.json');
  writeFileSync(config, JSON.stringify(SETTINGS));
  const train = ['train', '--config', config, ...DATA, '--out', run, '--seed', '3', ...ENGINE];
  trained = (await fathomJson([...train, '--stop-after', '2', '--capture'])) as unknown as TrainResult;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fathom train', () => {
  it('gives the figures of the run as one JSON object', () => {
    expect(trained).toMatchObject({ out: run, steps: 2, ended: 'stop-after' });
    for (const figure of [trained.loss.first, trained.loss.final, trained.loss.validation]) {
      // A model that knows nothing is at ln 512 = 6.24.
      expect(figure).toBeGreaterThan(4);
      expect(figure).toBeLessThan(7);
    }
    expect(trained.parameters.active).toBeLessThan(trained.parameters.total);
    expect(trained.tokensPerSecond).toBeGreaterThan(0);
    expect(trained.peakBytes).toBeGreaterThan(trained.memory.measured.total);
  });

  it('keeps tensors of its last step with --capture', async () => {
    expect(readdirSync(path.join(run, 'capture'))).toEqual(['step-2.safetensors']);
    const { kinds } = await fathomJson(['numerics', 'compare', '--formats', 'bf16', '--from-run', run]);
    expect(kinds).toHaveLength(4);
  });

  it('goes on with --resume and prints the whole curve', async () => {
    const { code, stdout, stderr } = await fathom(['train', '--out', run, '--resume', ...ENGINE]);
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/^training loss\n[\s\S]*\n +1 +4 steps\n\nrun .*run, 4 steps\n/),
    ]);
    expect(stderr).toContain('resuming after step 2');
    expect(stderr).toMatch(/^train 4\/4 · loss \d\.\d+ · .* tokens\/s$/m);
    const lines = readFileSync(path.join(run, 'metrics.jsonl'), 'utf8').trim().split('\n');
    const metrics = lines.map((line) => JSON.parse(line) as { step: number; loss?: number });
    expect(metrics.filter(({ loss }) => loss !== undefined).map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  });

  it('leaves a checkpoint that inspect, generate and score take', async () => {
    const summary = (await fathomJson(['inspect', run])) as unknown as ModelSummary;
    const { total, mtp } = summary.parameters;
    expect(total + mtp.total).toBe(trained.parameters.total);
    const again = () =>
      fathomJson(['generate', run, '-p', 'The', '--max-tokens', '5', '--seed', '1', ...ENGINE]);
    const [first, second] = [await again(), await again()];
    expect(first.tokens).toHaveLength(5);
    const untimed = ({ text, tokens, reason }: typeof first) => ({ text, tokens, reason });
    expect(untimed(second)).toEqual(untimed(first));
    const { stdout } = await fathom([
      'generate',
      run,
      '-p',
      'The',
      '--max-tokens',
      '5',
      '--seed',
      '1',
      ...ENGINE,
    ]);
    expect(stdout).toBe(`The${first.text}\n`);
    const score = await fathomJson(['score', run, '--text', 'The Union', '--top', '3', ...ENGINE]);
    const logprobs = score.logprobs as number[];
    expect(score.meanNll).toBeCloseTo(-logprobs.reduce((a, b) => a + b, 0) / logprobs.length, 12);
    expect((score.top as unknown[][]).map((list) => list.length)).toEqual(
      (score.tokens as number[]).map(() => 3),
    );
  });
});

describe('fathom demo', () => {
  it('trains, writes a sample, says what to try next, and does not train twice', async () => {
    const out = path.join(folder, 'demo');
    const demo = ['demo', '--preset', 'tiny', '--steps', '1', '--out', out, ...ENGINE];
    const first = await fathom(demo);
    expect(first.code).toBe(0);
    expect(first.stdout).toMatch(/training loss[\s\S]*Fellow-Citizens[\s\S]*Next:\n {2}npx fathom generate/);
    const second = await fathom(demo);
    expect([second.code, second.stderr]).toEqual([0, expect.stringContaining('is trained already')]);
  });
});

describe('wrong use', () => {
  const cases: [args: string[], message: RegExp][] = [
    [['train', '--steps', '0'], /'--steps <n>' argument '0' is invalid/],
    [['train', '--seed', '-1'], /'--seed <n>' argument '-1' is invalid/],
    [['train', '--threads', 'two'], /'--threads <n>' argument 'two' is invalid/],
    [
      ['train', '--precision', 'fp4'],
      /'--precision <name>' argument 'fp4' is invalid. Allowed choices are fp32, bf16, fp8/,
    ],
    [['train', '--preset', 'huge'], /'--preset <name>' argument 'huge' is invalid/],
    [['train', '--preset', 'tiny', '--config', 'x'], /cannot be used with/],
    [['train', '--corpus', 'sotu', '--data', 'x'], /cannot be used with/],
    [['generate', 'x'], /required option '-p, --prompt <text>' not specified/],
    [['generate', 'x', '-p', 'y', '--temperature', 'NaN'], /'--temperature <t>' argument 'NaN' is invalid/],
    [
      ['generate', 'x', '-p', 'y', '--top-p', '1.5'],
      /'--top-p <p>' argument '1.5' is invalid. It must be a number from 0 to 1/,
    ],
    [['score', 'x'], /nothing to score; give --text, --tokens or --file/],
  ];
  for (const [args, message] of cases) {
    it(`fathom ${args.join(' ')}`, async () => {
      const { code, stderr } = await fathom(args);
      expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
      expect(stderr.trimEnd()).not.toContain('\n');
    });
  }
});

describe('bad input', () => {
  it('names what is wrong with a training file and starts nothing', async () => {
    const file = path.join(folder, 'wrong.json');
    const out = path.join(folder, 'never');
    const answer = async (change: object) => {
      writeFileSync(file, JSON.stringify({ ...SETTINGS, ...change }));
      const { code, stderr } = await fathom(['train', '--config', file, ...DATA, '--out', out, ...ENGINE]);
      expect(code).toBe(1);
      return stderr;
    };
    expect(await answer({ learning_rate: 1 })).toContain(`${file}: unknown field "learning_rate"`);
    expect(await answer({ learningRate: 'NaN' })).toContain(`${file}: field learningRate: `);
    expect(await answer({ microBatches: 3 })).toContain('must be a multiple of microBatches (3)');
    expect(existsSync(out)).toBe(false);
  });

  it('refuses ids that the model does not know, and texts that it cannot score', async () => {
    const far = await fathom(['score', run, '--tokens', '1,512', ...ENGINE]);
    expect([far.code, far.stderr]).toEqual([
      2,
      expect.stringContaining("token id 512 is beyond the model's vocabulary of 512"),
    ]);
    const one = await fathom(['score', run, '--tokens', '1', ...ENGINE]);
    expect([one.code, one.stderr]).toEqual([1, expect.stringContaining('score at least two tokens')]);
  });
});
