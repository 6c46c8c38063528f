// A trainer of a small model, alone or over ranks, and batches for it.
import { Random } from '../../dist/numerics/random.js';

const dist = (file) => import(new URL(`../../dist/${file}`, import.meta.url));

export const SEQUENCES = 4;
export const LENGTH = 32;

/** @param t transport of a rank, or undefined for one process */
export async function trainerOver(
  t,
  { precision, wire, group, steps, microBatches = 1, overlap, recompute, model: overrides = {} },
) {
  const { parseModelConfig } = await dist('spec/model.js');
  const { MODEL_PRESETS } = await dist('spec/presets.js');
  const { parseTrainConfig, TRAIN_PRESETS } = await dist('train/config.js');
  const { Trainer } = await dist('train/trainer.js');
  const { Team } = await dist('expert/team.js');
  const { parseWire } = await dist('expert/wire/format.js');
  const { selectBackend } = await dist('backend/select.js');
  const { initialise } = await dist('model/initialise.js');
  const model = parseModelConfig({
    ...MODEL_PRESETS.tiny,
    vocab_size: 64,
    num_hidden_layers: 2,
    ...overrides,
  });
  const shape = { batchSequences: SEQUENCES * microBatches, sequenceLength: LENGTH, warmupSteps: 5, steps };
  const config = parseTrainConfig(
    { ...TRAIN_PRESETS.tiny, ...shape, precision, microBatches, recompute },
    'test',
  );
  const settings = {
    expertParallel: group ?? t?.placement.size,
    wire: parseWire(wire ?? 'fp32'),
    checksums: true,
    overlap,
  };
  const team = t && new Team(t, settings, model);
  const trainer = new Trainer(config, model, selectBackend('auto', 1), team);
  initialise(trainer.model, 3);
  return trainer;
}

/** Step → its micro-batches: text with a pattern, of two segments a sequence. */
export async function randomBatches(model, { microBatches = 1 }, part) {
  const { toBatch } = await dist('train/data.js');
  return (step) =>
    Array.from({ length: microBatches }, (_, i) =>
      toBatch(packed(new Random(1 + step * microBatches + i), model), part),
    );
}

function packed(random, model) {
  const total = SEQUENCES * LENGTH;
  const start = Array.from({ length: SEQUENCES }, () => random.below(model.vocab_size));
  const tokens = Int32Array.from({ length: total }, (_, i) =>
    random.uniform() < 0.1
      ? random.below(model.vocab_size)
      : (start[Math.floor(i / LENGTH)] + 3 * (i % LENGTH)) % model.vocab_size,
  );
  const half = LENGTH / 2;
  const ahead = (k, none) =>
    Int32Array.from(tokens, (_, i) => ((i % half) + k < half ? tokens[i + k] : none));
  const depth = model.num_nextn_predict_layers;
  return {
    rows: SEQUENCES,
    seqLen: LENGTH,
    inputs: tokens,
    targets: ahead(1, -1),
    positions: Int32Array.from(tokens, (_, i) => i % half),
    cuSeqlens: Int32Array.from({ length: 2 * SEQUENCES + 1 }, (_, i) => i * half),
    mtpInputs: Array.from({ length: depth }, (_, k) => ahead(k + 1, 0)),
    mtpTargets: Array.from({ length: depth }, (_, k) => ahead(k + 2, -1)),
  };
}
