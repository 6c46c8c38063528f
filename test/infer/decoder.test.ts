import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { Decoder } from '../../src/infer/decoder.js';
import { loadModel } from '../../src/model/load.js';
import { SafetensorsReader } from '../../src/model/safetensors.js';
import { RECIPES } from '../../src/spec/precision.js';

const ROOT = path.join(import.meta.dirname, '../goldens/transformers');
// As for the training forward: FP32 sums in another order, which absorbing W^UK changes once more.
const TOLERANCE = 2e-4;

describe('decoding on the latent cache', () => {
  // A prompt in the expanded form, then chunks of several tokens and single ones in the absorbed form.
  const chunks = [5, 1, 3, 1, 1];

  it.each(['v3-fp32', 'v3-yarn-mscale', 'v3-rope-halves', 'v3-one-group', 'v2-fp32'])(
    'gives the logits of transformers at every chunk end: %s',
    (variant) => {
      const golden = SafetensorsReader.open(path.join(ROOT, variant, 'golden.safetensors'));
      const [, length, vocabulary] = golden.entry('logits').shape as [number, number, number];
      const expected = golden.readFloats('logits').subarray(0, length * vocabulary);
      const ids = golden.readIntegers('input_ids').subarray(0, length);
      golden.close();
      const largest = expected.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
      const decoder = new Decoder(
        loadModel(path.join(ROOT, variant), referenceBackend, 0),
        RECIPES.fp32,
        length,
      );
      let at = 0;
      for (const count of chunks) {
        const logits = decoder.extend([...ids.subarray(at, at + count)]);
        at += count;
        const row = expected.subarray((at - 1) * vocabulary, at * vocabulary);
        const error = row.reduce((max, x, i) => Math.max(max, Math.abs(x - logits[i]!)), 0);
        expect(error / largest, `position ${at - 1}`).toBeLessThan(TOLERANCE);
      }
    },
  );

  it('keeps d_c + d_h^R values per token and layer', () => {
    const model = loadModel(path.join(ROOT, 'v3-fp32'), referenceBackend, 0);
    const { num_hidden_layers: layers, kv_lora_rank: latent, qk_rope_head_dim: rope } = model.config;
    expect(new Decoder(model, RECIPES.bf16, 10).bytesPerToken).toBe(2 * layers * (latent + rope));
  });
});
