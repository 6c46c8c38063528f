/**
 * Packing documents into sequences of equal length, and sequences into batches.
 *
 * An epoch is one stream: its documents in shuffled order, each as [bos, its tokens, eos]. The stream is cut into sequences
 * of S inputs; the sequence that begins at p has the tokens p .. p+S, the last one only as a target, and
 * the next sequence begins at p+S, so that every token of the stream but the first is predicted once. What is left at the end
 * of an epoch (less than a sequence) is dropped; the next epoch's shuffle drops others.
 *
 * B sequences per batch, S tokens per sequence, T = B·S; row b·S+i is token i of sequence b.
 */
import { UserError } from '../errors.js';
import { Random } from '../numerics/random.js';
import type { TokenDocuments } from './tokens.js';

/** Marks a target that does not count. */
export const IGNORE = -1;

export interface PackingOptions {
  /** S, inputs per sequence. */
  seqLen: number;
  /** B, sequences per batch. */
  batchSize: number;
  /** Put before each document, unless undefined. */
  bosId: number | undefined;
  /** Put after each document, unless undefined. */
  eosId: number | undefined;
  /** `mask` ends segments at document boundaries as well; `attend` lets attention and targets cross them. Default `mask`. */
  crossDocuments?: 'mask' | 'attend';
  /** D, how many further tokens ahead Multi-Token Prediction targets [TR §2.2]; 0 by default. */
  mtpDepth?: number;
}

/** One batch; every array of length T is row-major [B, S]. */
export interface PackedBatch {
  /** B here: the options' batch size, or fewer in the last batch of a validation pass. */
  rows: number;
  /** S. */
  seqLen: number;
  /** [T] token ids. */
  inputs: Int32Array;
  /** [T] the next token, IGNORE where it belongs to another segment. */
  targets: Int32Array;
  /** [T] position within the segment, from 0. */
  positions: Int32Array;
  /** [segments + 1] where segments begin among the T rows: 0, ..., T. No segment crosses a sequence. */
  cuSeqlens: Int32Array;
  /** D times [T], k = 1..D: the token k ahead, which MTP module k embeds; 0 where `mtpTargets` ignores the row. */
  mtpInputs: Int32Array[];
  /** D times [T], k = 1..D: the token k+1 ahead, IGNORE where it belongs to another sequence or segment. */
  mtpTargets: Int32Array[];
}

/** Where training stands in its stream of sequences; plain JSON. */
export interface PackingState {
  epoch: number;
  /** Sequences of this epoch already given out. */
  sequence: number;
}

/** Endless training batches: every epoch in a new order that the seed decides, resumable at any batch. */
export class TrainingBatches {
  /** Sequences in one epoch. */
  readonly sequencesPerEpoch: number;
  private readonly packer: Packer;
  private epoch = 0;
  private sequence = 0;
  private stream: DocumentStream;

  /** @throws UserError when the documents are shorter than one sequence and its last target */
  constructor(
    private readonly documents: TokenDocuments,
    private readonly options: PackingOptions,
    private readonly seed: number,
  ) {
    checkOptions(options);
    this.stream = this.streamOf(0);
    this.packer = new Packer(options);
    this.sequencesPerEpoch = Math.floor((this.stream.length - 1) / options.seqLen);
    if (this.sequencesPerEpoch < 1) {
      throw new UserError(
        `the training text has ${this.stream.length} tokens, fewer than the ${options.seqLen + 1} of one sequence: ` +
          'give more text or a shorter sequence length',
      );
    }
  }

  /** The next B sequences; a batch may span two epochs. */
  next(): PackedBatch {
    this.packer.begin(this.options.batchSize);
    for (let row = 0; row < this.options.batchSize; row++) {
      if (this.sequence === this.sequencesPerEpoch) this.enter(this.epoch + 1);
      this.packer.add(this.stream, this.sequence++ * this.options.seqLen);
    }
    return this.packer.finish();
  }

  state(): PackingState {
    return { epoch: this.epoch, sequence: this.sequence };
  }

  /** Goes on after the sequences that `state` counts. @throws UserError when it cannot be a state of this corpus */
  restore(state: PackingState): void {
    const { epoch, sequence } = state;
    const fits = Number.isSafeInteger(epoch) && epoch >= 0 && Number.isInteger(sequence) && sequence >= 0;
    if (!fits || sequence > this.sequencesPerEpoch) {
      throw new UserError(
        `data position ${JSON.stringify(state)} does not fit this corpus of ${this.sequencesPerEpoch} sequences per epoch: ` +
          'resume with the corpus, tokenizer and sequence length of the run',
      );
    }
    this.enter(epoch);
    this.sequence = sequence;
  }

  private enter(epoch: number): void {
    this.epoch = epoch;
    this.sequence = 0;
    this.stream = this.streamOf(epoch);
  }

  private streamOf(epoch: number): DocumentStream {
    const order = Random.stream(this.seed, 'shuffle', epoch).shuffle(indices(this.documents));
    return new DocumentStream(this.documents, order, this.options);
  }
}

/**
 * One pass over held-out documents in their own order. No token is dropped: the last sequence is filled up with eos (or id 0)
 * in segments of their own whose targets do not count, and the last batch may have fewer sequences.
 */
export function* validationBatches(
  documents: TokenDocuments,
  options: PackingOptions,
): Generator<PackedBatch> {
  checkOptions(options);
  const { seqLen, batchSize } = options;
  const stream = new DocumentStream(documents, indices(documents), options);
  const sequences = Math.ceil((stream.length - 1) / seqLen);
  const packer = new Packer(options);
  for (let first = 0; first < sequences; first += batchSize) {
    const rows = Math.min(batchSize, sequences - first);
    packer.begin(rows);
    for (let row = 0; row < rows; row++) packer.add(stream, (first + row) * seqLen);
    yield packer.finish();
  }
}

function indices(documents: TokenDocuments): Int32Array {
  return Int32Array.from(documents.starts, (_, i) => i);
}

function checkOptions({ seqLen, batchSize, mtpDepth = 0 }: PackingOptions): void {
  const check = (name: string, value: number, least: number) => {
    if (Number.isInteger(value) && value >= least) return;
    throw new UserError(`${name} ${value}: it must be a whole number of at least ${least}`);
  };
  check('sequence length', seqLen, 1);
  check('batch size', batchSize, 1);
  check('MTP depth', mtpDepth, 0);
}

/** The documents of an epoch as one run of tokens with bos and eos between, read in any place. */
class DocumentStream {
  readonly length: number;
  /** [documents + 1] where each document of the order begins in the stream. */
  private readonly begins: Float64Array;

  constructor(
    private readonly documents: TokenDocuments,
    private readonly order: Int32Array,
    private readonly options: Pick<PackingOptions, 'bosId' | 'eosId'>,
  ) {
    const frame = Number(options.bosId !== undefined) + Number(options.eosId !== undefined);
    this.begins = new Float64Array(order.length + 1);
    for (const [i, document] of order.entries()) {
      this.begins[i + 1] = this.begins[i] + documents.ends[document] - documents.starts[document] + frame;
    }
    this.length = this.begins[order.length];
  }

  /**
   * Fills `tokens` with the stream from `start` on, and `owners` with the number of the document that each
   * token belongs to. Past the end of the stream: eos (or 0), each its own document.
   */
  read(start: number, tokens: Int32Array, owners: Int32Array): void {
    let filled = 0;
    for (let i = this.documentAt(start); i < this.order.length && filled < tokens.length; i++) {
      const from = Math.max(0, start - this.begins[i]);
      const count = Math.min(this.begins[i + 1] - this.begins[i] - from, tokens.length - filled);
      this.readDocument(this.order[i], from, tokens.subarray(filled, filled + count));
      owners.fill(i, filled, filled + count);
      filled += count;
    }
    for (; filled < tokens.length; filled++) {
      tokens[filled] = this.options.eosId ?? 0;
      owners[filled] = PADDING;
    }
  }

  /** Tokens `from`.. of one document as it stands in the stream, bos and eos included. */
  private readDocument(document: number, from: number, out: Int32Array): void {
    const { bosId, eosId } = this.options;
    const { source, starts, ends } = this.documents;
    const before = bosId === undefined ? 0 : 1;
    const length = ends[document] - starts[document];
    const first = Math.max(0, from - before);
    const last = Math.min(length, from - before + out.length);
    if (from < before) out[0] = bosId!;
    if (last > first)
      source.read(starts[document] + first, out.subarray(first + before - from, last + before - from));
    if (eosId !== undefined && from + out.length > before + length) out[out.length - 1] = eosId;
  }

  /** The document that holds a place of the stream (binary search). */
  private documentAt(place: number): number {
    let low = 0;
    let high = this.order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.begins[middle + 1] <= place) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Owner of the filling after the end of a stream. */
const PADDING = -1;

/** Writes sequences one after another into the arrays of a batch. */
class Packer {
  private readonly seqLen: number;
  private readonly depth: number;
  private readonly masks: boolean;
  /** The S+1 tokens of a sequence, and the document of each. */
  private readonly tokens: Int32Array;
  private readonly owners: Int32Array;
  private batch!: Omit<PackedBatch, 'cuSeqlens'>;
  private segments: number[] = [];
  private row = 0;

  constructor({ seqLen, mtpDepth = 0, crossDocuments = 'mask' }: PackingOptions) {
    this.seqLen = seqLen;
    this.depth = mtpDepth;
    this.masks = crossDocuments === 'mask';
    this.tokens = new Int32Array(seqLen + 1);
    this.owners = new Int32Array(seqLen + 1);
  }

  begin(rows: number): void {
    const column = () => new Int32Array(rows * this.seqLen);
    const perDepth = () => Array.from({ length: this.depth }, column);
    this.batch = {
      rows,
      seqLen: this.seqLen,
      inputs: column(),
      targets: column(),
      positions: column(),
      mtpInputs: perDepth(),
      mtpTargets: perDepth(),
    };
    this.segments = [];
    this.row = 0;
  }

  add(stream: DocumentStream, start: number): void {
    stream.read(start, this.tokens, this.owners);
    const base = this.row++ * this.seqLen;
    this.batch.inputs.set(this.tokens.subarray(0, this.seqLen), base);
    this.addSegments(base);
    this.addTargets(this.batch.targets, base, 1);
    for (let k = 1; k <= this.depth; k++) {
      this.addTargets(this.batch.mtpTargets[k - 1], base, k + 1);
      this.addMtpInputs(k, base);
    }
  }

  finish(): PackedBatch {
    return { ...this.batch, cuSeqlens: Int32Array.from([...this.segments, this.row * this.seqLen]) };
  }

  private addSegments(base: number): void {
    let begin = 0;
    for (let i = 0; i < this.seqLen; i++) {
      if (i === 0 || !this.together(i - 1, i)) {
        this.segments.push(base + i);
        begin = i;
      }
      this.batch.positions[base + i] = i - begin;
    }
  }

  /** Row i gets the token `ahead` places on, unless that lies past the sequence or in another segment. */
  private addTargets(targets: Int32Array, base: number, ahead: number): void {
    for (let i = 0; i < this.seqLen; i++) {
      const isTarget = i + ahead <= this.seqLen && this.together(i, i + ahead);
      targets[base + i] = isTarget ? this.tokens[i + ahead] : IGNORE;
    }
  }

  private addMtpInputs(k: number, base: number): void {
    const targets = this.batch.mtpTargets[k - 1];
    for (let i = 0; i < this.seqLen; i++) {
      this.batch.mtpInputs[k - 1][base + i] = targets[base + i] === IGNORE ? 0 : this.tokens[i + k];
    }
  }

  /**
   * Whether two tokens of the sequence, the first before the second, share a segment. Documents stand in runs,
   * and padding only at the end, so these two places decide.
   */
  private together(first: number, second: number): boolean {
    const [a, b] = [this.owners[first], this.owners[second]];
    return b !== PADDING && (a === b || !this.masks);
  }
}
