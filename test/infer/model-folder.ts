import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { initialise } from '../../src/model/initialise.js';
import { saveModel } from '../../src/model/load.js';
import { Transformer } from '../../src/model/transformer.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { trainBpe } from '../../src/text/bpe.js';
import { SPECIAL_TOKENS, saveTokenizer } from '../../src/text/tokenizer-files.js';

const TEXT =
  'The state of the Union is strong. {"name": "Ada", "age": 36, "tags": [true, false, null]}\n'.repeat(4);

/** Random weights of a small model with an MTP module, and a tokenizer of 300 tokens; removed after the tests. */
export async function modelFolder(changes: object = {}): Promise<string> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-engine-'));
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
  const specialTokens = Object.values(SPECIAL_TOKENS);
  const vocabulary = await trainBpe([TEXT], { vocabSize: 300, specialTokens });
  saveTokenizer(folder, vocabulary);
  const small = {
    hidden_size: 64,
    intermediate_size: 64,
    kv_lora_rank: 24,
    max_position_embeddings: 512,
    moe_intermediate_size: 32,
    num_hidden_layers: 2,
    q_lora_rank: 24,
    qk_nope_head_dim: 16,
    qk_rope_head_dim: 8,
    v_head_dim: 16,
    vocab_size: 304,
    // Wide enough that the next token depends on the context.
    initializer_range: 0.2,
  };
  const config = parseModelConfig({ ...MODEL_PRESETS.tiny, ...small, ...changes });
  const model = new Transformer(config, referenceBackend);
  initialise(model, 1);
  saveModel(folder, model, 'f32');
  return folder;
}
