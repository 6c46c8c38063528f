import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { initialise } from '../../src/model/initialise.js';
import { saveModel } from '../../src/model/load.js';
import { Transformer } from '../../src/model/transformer.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { goldenPath } from '../text/goldens.js';

const CHAT_TEMPLATE =
  '{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant]';

/** A folder with a small model of random weights, the golden tokenizer and a chat template; remove it after use. */
export function makeTinyModel(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'fathom-tiny-'));
  const config = parseModelConfig({ ...MODEL_PRESETS.tiny, vocab_size: 1024 }, 'preset tiny');
  const model = new Transformer(config, referenceBackend);
  initialise(model, 0);
  saveModel(folder, model, 'f32');
  copyFileSync(goldenPath('tokenizer.json'), path.join(folder, 'tokenizer.json'));
  writeFileSync(path.join(folder, 'tokenizer_config.json'), JSON.stringify({ chat_template: CHAT_TEMPLATE }));
  return folder;
}

export const removeModel = (folder: string): void => rmSync(folder, { recursive: true, force: true });
