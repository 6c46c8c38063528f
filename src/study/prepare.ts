import fs from 'node:fs';
import path from 'node:path';
import type { Ui } from '../report/ui.js';
import { prepareCorpus } from '../text/prepare.js';
import { Tokenizer } from '../text/tokenizer.js';
import { trainTokenizer } from '../train/data.js';
import type { StudyPlan } from './plan.js';

/** What the runs of a study share. */
export interface SharedData {
  /** Folder of the tokenizer for a vocabulary of this size. */
  tokenizer(vocabSize: number): string;
  /** Folder of the tokenised corpus. */
  cache: string;
}

/** Trains the tokenizers that the variants need and tokenises the corpus, or finds both in `folder`. */
export async function prepareData(
  { source, variants }: StudyPlan,
  folder: string,
  ui: Ui,
): Promise<SharedData> {
  const shared: SharedData = {
    tokenizer: (vocabSize) => path.join(folder, `tokenizer-${vocabSize}`),
    cache: path.join(folder, 'tokens'),
  };
  for (const size of new Set(variants.map(({ model }) => model.vocab_size))) {
    const out = shared.tokenizer(size);
    if (!fs.existsSync(path.join(out, 'tokenizer.json'))) await trainTokenizer(source, size, out, ui);
    const progress = ui.progress('tokenise');
    const corpus = await prepareCorpus({
      source,
      tokenizer: Tokenizer.fromFolder(out),
      cacheDir: shared.cache,
      // Runs split the corpus by their own settings; it is only tokenised here.
      validationFraction: 0.5,
      seed: 0,
      onProgress: (done, total) => progress.update({ done, total }),
    });
    progress.end();
    corpus.close();
  }
  return shared;
}
