import fs from 'node:fs';
import path from 'node:path';
import { UserError } from '../errors.js';
import { withFileErrors } from '../files.js';
import type { Batch } from '../model/transformer.js';
import type { Ui } from '../report/ui.js';
import { Tensor } from '../tensor/tensor.js';
import {
  type PackedBatch,
  type PackingOptions,
  type PackingState,
  TrainingBatches,
  validationBatches,
} from '../text/batches.js';
import { trainBpe } from '../text/bpe.js';
import { type CorpusSource, readDocuments } from '../text/corpus.js';
import { type PreparedCorpus, prepareCorpus } from '../text/prepare.js';
import { Tokenizer } from '../text/tokenizer.js';
import { SPECIAL_TOKENS, saveTokenizer } from '../text/tokenizer-files.js';
import { type Part, partOf, WHOLE } from './part.js';
import type { RunFile } from './run-file.js';

/** The batches of a run: tokenised text, packed, in an order that the seed decides. */
export class TrainingData {
  private readonly batches: TrainingBatches;
  private readonly held: Batch[];

  private constructor(
    private readonly corpus: PreparedCorpus,
    run: RunFile,
    tokenizer: Tokenizer,
    private readonly part: Part,
  ) {
    const { config, model } = run;
    const packing: PackingOptions = {
      seqLen: config.sequenceLength,
      batchSize: config.batchSequences / config.microBatches,
      bosId: tokenizer.bosId,
      eosId: tokenizer.eosId,
      crossDocuments: config.data.crossDocuments,
      mtpDepth: model.num_nextn_predict_layers,
    };
    this.batches = new TrainingBatches(corpus.train, packing, config.seed);
    this.held = take(validationBatches(corpus.validation, packing), config.validationBatches)
      .filter(({ rows }) => rows % part.of === 0)
      .map((batch) => toBatch(batch, part));
    if (part.of > 1 && this.held.length === 0) {
      throw new UserError(
        `the validation text fills no batch whose sequences ${part.of} ranks could share; raise data.validationFraction or take fewer ranks`,
      );
    }
  }

  /** Trains or copies the tokenizer, tokenises the corpus into the run's `dataCache`, or finds both there. */
  static async open(run: RunFile, ui: Ui, part: Part = WHOLE): Promise<TrainingData> {
    const tokenizer = await tokenizerOf(run, ui);
    if (tokenizer.vocabSize > run.model.vocab_size) {
      throw new UserError(
        `the tokenizer has ${tokenizer.vocabSize} tokens but the model's vocab_size is ${run.model.vocab_size}; ` +
          'take a smaller tokenizer or a larger vocab_size',
      );
    }
    const progress = ui.progress('tokenise');
    const corpus = await prepareCorpus({
      source: run.source,
      tokenizer,
      cacheDir: run.dataCache,
      validationFraction: run.config.data.validationFraction,
      seed: run.config.seed,
      onProgress: (done, total) => progress.update({ done, total }),
    });
    progress.end();
    return new TrainingData(corpus, run, tokenizer, part);
  }

  /** The micro-batches of the next step. */
  next(microBatches: number): Batch[] {
    return Array.from({ length: microBatches }, () => toBatch(this.batches.next(), this.part));
  }

  /** Held-out batches, the same every time. */
  validation(): readonly Batch[] {
    return this.held;
  }

  /** Where the next batch comes from; plain JSON. */
  state(): PackingState {
    return this.batches.state();
  }

  /** Goes on from a state. @throws UserError when it is not one of this corpus */
  restore(state: unknown): void {
    this.batches.restore(state as PackingState);
  }

  close(): void {
    this.corpus.close();
  }
}

async function tokenizerOf(run: RunFile, ui: Ui): Promise<Tokenizer> {
  const present = fs.existsSync(path.join(run.out, 'tokenizer.json'));
  if (!present && run.tokenizer !== undefined) copyTokenizer(run.tokenizer, run.out);
  else if (!present) await trainTokenizer(run.source, run.model.vocab_size, run.out, ui);
  return Tokenizer.fromFolder(run.out);
}

function copyTokenizer(from: string, to: string): void {
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    const source = path.join(from, name);
    if (name === 'tokenizer_config.json' && !fs.existsSync(source)) continue;
    withFileErrors('copy', source, () => fs.copyFileSync(source, path.join(to, name)));
  }
}

/** Byte-level BPE of so many tokens, learned from the corpus and saved in the folder `out`. */
export async function trainTokenizer(
  source: CorpusSource,
  vocabSize: number,
  out: string,
  ui: Ui,
): Promise<void> {
  const progress = ui.progress('tokenizer');
  const vocabulary = await trainBpe(readDocuments(source), {
    vocabSize,
    specialTokens: Object.values(SPECIAL_TOKENS),
    onProgress: (done, total, label) => progress.update({ done, total, details: [label] }),
  });
  progress.end();
  saveTokenizer(out, vocabulary);
}

function take<T>(items: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    if (taken.push(item) === count) break;
  }
  return taken;
}

/** Arrays of a packed batch as tensors; of one part of it, with the number of targets of the whole. */
export function toBatch(packed: PackedBatch, part: Part = WHOLE): Batch {
  const { rows, seqLen } = packed;
  const whole = {
    inputs: Tensor.i32(packed.inputs),
    targets: Tensor.i32(packed.targets),
    positions: Tensor.i32(packed.positions),
    segments: Tensor.i32(packed.cuSeqlens),
    sequences: Tensor.i32(Array.from({ length: rows + 1 }, (_, row) => row * seqLen)),
    mtpInputs: packed.mtpInputs.map((values) => Tensor.i32(values)),
    mtpTargets: packed.mtpTargets.map((values) => Tensor.i32(values)),
  };
  return part.of > 1 ? partOf(whole, part) : whole;
}
