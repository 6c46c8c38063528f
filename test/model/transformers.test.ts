import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadNativeBackend } from '../../src/backend/native/index.js';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { loadModel } from '../../src/model/load.js';
import { SafetensorsReader } from '../../src/model/safetensors.js';
import type { Batch } from '../../src/model/transformer.js';
import { RECIPES } from '../../src/spec/precision.js';
import type { Backend } from '../../src/tensor/backend.js';
import type { Parameter } from '../../src/tensor/parameter.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';

/**
 * Logits, loss and gradients of the checkpoints that scripts/goldens/transformers_goldens.py made with Hugging
 * Face transformers, in FP32.
 */
const ROOT = path.join(import.meta.dirname, '../goldens/transformers');
const VARIANTS = fs.readdirSync(ROOT);
const RECOMPUTE = [
  { rmsNorm: false, mlaUpProjection: false },
  { rmsNorm: true, mlaUpProjection: true },
];

// FP32 sums of some hundred terms in another order: a few 1e-6 of the largest value; the bounds leave room.
const LOGIT_TOLERANCE = 2e-4;
const GRADIENT_TOLERANCE = 1e-3;

const backends: [string, Backend | undefined][] = [
  ['reference', referenceBackend],
  ['native', loadNativeBackend()],
];

describe.each(backends)('transformers parity on the %s backend', (_name, backend) => {
  describe.skipIf(!backend).each(VARIANTS)('%s', (variant) => {
    const folder = path.join(ROOT, variant);

    it('gives the same logits', () => {
      const { golden, ids } = open(folder);
      const model = loadModel(folder, backend!);
      const tape = new Tape(backend!, new Pool(backend!), false);
      const batch = batchOf(ids, 0);
      const ctx = model.context(tape, RECIPES.fp32, batch, RECOMPUTE[0]!);
      const logits = model.logits(ctx, model.forward(ctx, batch.inputs));
      expectClose('logits', logits.data, golden.readFloats('logits'), LOGIT_TOLERANCE);
      golden.close();
    });

    it.each(RECOMPUTE)('gives the same loss and gradients, recomputing $rmsNorm', (recompute) => {
      const { golden, ids, expected } = open(folder);
      const model = loadModel(folder, backend!);
      const batch = batchOf(ids, model.mtpDepth);
      const tape = new Tape(backend!, new Pool(backend!), true);
      const ctx = model.context(tape, RECIPES.fp32, batch, recompute);
      const losses = model.losses(ctx, batch, { scale: 1, mtp: expected['mtp.lambda'] ?? 0, balance: 0 });
      expectNear(mean(losses.main, batch.targets), expected.loss);
      losses.mtp.forEach((values, k) => {
        expectNear(mean(values, batch.mtpTargets[k]!), expected['mtp.loss']!);
      });
      tape.backward();
      for (const name of golden.tensors.keys()) {
        if (!name.startsWith('grad.')) continue;
        const ours = gradientOf(model.parameters, name.slice('grad.'.length));
        expectClose(name, ours, golden.readFloats(name), GRADIENT_TOLERANCE);
      }
      golden.close();
    });
  });
});

interface Golden {
  loss: number;
  'mtp.loss'?: number;
  'mtp.lambda'?: number;
}

const expectNear = (ours: number, theirs: number): void =>
  expect(Math.abs(ours - theirs)).toBeLessThan(LOGIT_TOLERANCE * theirs);

function open(folder: string) {
  const golden = SafetensorsReader.open(path.join(folder, 'golden.safetensors'));
  const expected = JSON.parse(fs.readFileSync(path.join(folder, 'golden.json'), 'utf8')) as Golden;
  const shape = golden.entry('input_ids').shape as [number, number];
  return { golden, ids: { shape, data: golden.readIntegers('input_ids') }, expected };
}

/** Every sequence is one segment; targets are the next tokens, as transformers shifts labels. */
function batchOf(ids: { shape: [number, number]; data: Int32Array }, mtpDepth: number): Batch {
  const [sequences, length] = ids.shape;
  const bounds = Tensor.i32(Array.from({ length: sequences + 1 }, (_, s) => s * length));
  const ahead = (k: number, none: number) =>
    Tensor.i32(Array.from(ids.data, (_, i) => ((i % length) + k < length ? ids.data[i + k]! : none)));
  return {
    inputs: Tensor.i32(ids.data),
    targets: ahead(1, -1),
    positions: Tensor.i32(Array.from(ids.data, (_, i) => i % length)),
    segments: bounds,
    sequences: bounds,
    mtpInputs: Array.from({ length: mtpDepth }, (_, k) => ahead(k + 1, 0)),
    mtpTargets: Array.from({ length: mtpDepth }, (_, k) => ahead(k + 2, -1)),
  };
}

const mean = (losses: Tensor, targets: Tensor): number =>
  (losses.data as Float32Array).reduce((a, b) => a + b, 0) /
  (targets.data as Int32Array).filter((t) => t >= 0).length;

/** Our gradient under a transformers name: gate_proj and up_proj are the halves of gate_up_proj. */
function gradientOf(parameters: ReadonlyMap<string, Parameter>, name: string): ArrayLike<number> {
  const direct = parameters.get(name);
  if (direct) return direct.gradient().data;
  const fused = parameters.get(name.replace(/(gate|up)_proj\.weight$/, 'gate_up_proj.weight'));
  if (!fused) throw new Error(`no gradient for ${name}`);
  const { data, size } = fused.gradient();
  return name.endsWith('gate_proj.weight') ? data.subarray(0, size / 2) : data.subarray(size / 2);
}

/** All elements within `tolerance` of the largest magnitude expected. */
function expectClose(name: string, ours: ArrayLike<number>, theirs: Float32Array, tolerance: number): void {
  expect(ours.length, name).toBe(theirs.length);
  const largest = theirs.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  const bad = theirs.findIndex((x, i) => !(Math.abs(x - ours[i]!) <= tolerance * largest));
  const shown = bad < 0 ? '' : `${name}[${bad}] is ${ours[bad]}, expected ${theirs[bad]}`;
  expect(shown).toBe('');
}
