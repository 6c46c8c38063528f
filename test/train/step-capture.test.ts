import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { initialise } from '../../src/model/initialise.js';
import { SafetensorsReader } from '../../src/model/safetensors.js';
import { type Batch, Transformer } from '../../src/model/transformer.js';
import { Random } from '../../src/numerics/random.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { RECIPES } from '../../src/spec/precision.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { openCapture } from '../../src/train/capture.js';
import { parseTrainConfig, TRAIN_PRESETS } from '../../src/train/config.js';
import { removeCapturesAfter, StepCapture } from '../../src/train/step-capture.js';
import { Trainer } from '../../src/train/trainer.js';

const LENGTH = 24;
const model = parseModelConfig({ ...MODEL_PRESETS.tiny, vocab_size: 64 });

function batch(): Batch {
  const random = new Random(5);
  const tokens = Array.from({ length: LENGTH }, () => random.below(model.vocab_size));
  const ahead = (k: number, none: number) => Tensor.i32(tokens.map((_, i) => tokens[i + k] ?? none));
  const bounds = Tensor.i32([0, LENGTH]);
  return {
    inputs: Tensor.i32(tokens),
    targets: ahead(1, -1),
    positions: Tensor.i32(tokens.map((_, i) => i)),
    segments: bounds,
    sequences: bounds,
    mtpInputs: [ahead(1, 0)],
    mtpTargets: [ahead(2, -1)],
  };
}

let run: string;
let folder: string;
beforeEach(() => {
  run = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-capture-'));
  folder = path.join(run, 'capture');
});
afterEach(() => fs.rmSync(run, { recursive: true, force: true }));

/** A pass forward and back in FP32, captured as step 7, with its gradients. */
function captured(): { transformer: Transformer; reader: SafetensorsReader } {
  const transformer = new Transformer(model, referenceBackend);
  initialise(transformer, 1);
  const capture = new StepCapture(model, 7);
  const tape = new Tape(referenceBackend, new Pool(referenceBackend), true, capture.observer);
  const ctx = transformer.context(tape, RECIPES.fp32, batch(), { rmsNorm: true, mlaUpProjection: true });
  transformer.losses(ctx, batch(), { scale: 1, mtp: 0.3, balance: 0 });
  tape.backward();
  capture.write(folder);
  return { transformer, reader: SafetensorsReader.open(path.join(folder, 'step-7.safetensors')) };
}

/** aᵀ·b for a [rows, n], b [rows, k]. */
function product(a: Float32Array, n: number, b: Float32Array, k: number): Float64Array {
  const out = new Float64Array(n * k);
  for (let row = 0; row < a.length / n; row++) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < k; j++) out[i * k + j]! += a[row * n + i]! * b[row * k + j]!;
    }
  }
  return out;
}

function expectNear(ours: ArrayLike<number>, theirs: ArrayLike<number>): void {
  expect(ours.length).toBe(theirs.length);
  const largest = Array.from(theirs).reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  expect(largest).toBeGreaterThan(0);
  // Sums of some hundred FP32 products against FP64.
  const bad = Array.from(theirs).findIndex((x, i) => !(Math.abs(x - ours[i]!) <= 1e-5 * largest));
  expect(bad < 0 ? '' : `[${bad}] is ${ours[bad]}, expected ${theirs[bad]}`).toBe('');
}

describe('a captured step', () => {
  it.each(['layers.0.self_attn.o_proj', 'layers.2.self_attn.q_a_proj', 'layers.0.mlp.down_proj'])(
    'holds input and output gradient of a Linear, which make up the gradient of its weight: %s',
    (what) => {
      const { transformer, reader } = captured();
      const [x, dy, w] = ['activations', 'gradients', 'weights'].map((kind) => {
        const name = `${kind}.${what}.step7`;
        return { values: reader.readFloats(name), cols: reader.entry(name).shape[1]! };
      }) as [
        { values: Float32Array; cols: number },
        { values: Float32Array; cols: number },
        { values: Float32Array },
      ];
      const parameter = transformer.parameters.get(`model.${what}.weight`)!;
      expect(w.values).toEqual(parameter.value.data);
      expectNear(product(dy.values, dy.cols, x.values, x.cols), parameter.gradient().data);
      reader.close();
    },
  );

  it('holds what each expert gave before combine, and who chose it', () => {
    const { transformer, reader } = captured();
    const [hidden, out] = ['activations', 'combine'].map((kind) =>
      reader.readFloats(`${kind}.layers.1.mlp.experts.down_proj.step7`),
    ) as [Float32Array, Float32Array];
    const choices = reader.readIntegers('routing.layers.1.step7');
    expect(reader.entry('routing.layers.1.step7').shape).toEqual([LENGTH, model.num_experts_per_tok]);
    const { data } = transformer.parameters.get('model.layers.1.mlp.experts.down_proj')!.value;
    const [d, i] = [model.hidden_size, model.moe_intermediate_size];
    // Rows are in the order of their experts.
    const experts = [...choices].sort((a, b) => a - b);
    const expected = experts.flatMap((e, row) =>
      Array.from({ length: d }, (_, n) => {
        let sum = 0;
        for (let k = 0; k < i; k++) sum += hidden[row * i + k]! * data[(e * d + n) * i + k]!;
        return sum;
      }),
    );
    expectNear(out, expected);
    reader.close();
  });

  it('has all kinds that a comparison of formats asks for, of a bounded number of rows', () => {
    captured().reader.close();
    const samples = [...openCapture(run).samples()];
    expect(new Set(samples.map(({ kind }) => kind))).toEqual(
      new Set(['weights', 'activations', 'gradients', 'combine']),
    );
    const rows = samples.map(({ values, cols }) => values.length / cols);
    // 8 experts of 2·128 rows are 2048; blocks of 128 of them are kept.
    expect(Math.max(...rows)).toBe(1024);
  });
});

describe('capturing', () => {
  it('leaves training as it is, to the bit', () => {
    const settings = { ...TRAIN_PRESETS.tiny, batchSequences: 2, sequenceLength: LENGTH, steps: 10 };
    const config = parseTrainConfig({ ...settings, precision: 'fp8', microBatches: 2 }, 'test');
    const train = (capture: boolean) => {
      const trainer = new Trainer(config, model, referenceBackend);
      initialise(trainer.model, 1);
      trainer.trainStep([batch(), batch()], capture ? new StepCapture(model, 1).observer : undefined);
      const values = [...trainer.model.parameters.values()].map(({ value }) => value.data);
      return { values, bytes: trainer.pool.reservedBytes };
    };
    expect(train(true)).toEqual(train(false));
  });

  it('forgets the steps after the one that a run goes back to', () => {
    captured().reader.close();
    new StepCapture(model, 12).write(folder);
    fs.writeFileSync(path.join(folder, 'notes.txt'), '');
    removeCapturesAfter(folder, 7);
    expect(fs.readdirSync(folder).sort()).toEqual(['notes.txt', 'step-7.safetensors']);
    removeCapturesAfter(path.join(run, 'nothing'), 0);
  });
});
