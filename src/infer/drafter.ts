import { Tensor } from '../tensor/tensor.js';
import { copyRows, MOST_BEHIND } from './behind.js';
import { DraftCosts } from './draft-costs.js';
import { ASSUMED_LEAST_ACCEPTANCE } from './draft-trial.js';
import type { ModelRunner } from './runner.js';
import type { Sampler } from './sampler.js';
import type { Portion } from './scheduler.js';
import type { Sequence } from './sequence.js';
import { draftBatch, type KeptRows, type ModuleRows } from './step-batch.js';

/** The MTP module's part in a step: which sequences draft, what they draft, and what the module still has to read. */
export class Drafter {
  private readonly costs = new DraftCosts();

  constructor(
    private readonly runner: ModelRunner,
    private readonly sampler: Sampler,
    /** Seconds from any moment on. */
    private readonly clock: () => number,
  ) {}

  /** Notes how a draft of a sequence went, in a step of so many. */
  drafted(sequence: Sequence, accepted: boolean, sequences: number): void {
    const measured = sequence.pinned ? undefined : this.costs.leastAcceptance(sequences);
    sequence.drafted(accepted, measured ?? ASSUMED_LEAST_ACCEPTANCE);
  }

  /**
   * Takes the module over the kept rows and draws the drafts. Where nothing is drafted, its rows wait: many cost little more than one.
   * @param hidden [M, D] of the step
   * @param started of the step, by the clock
   */
  run(portions: readonly Portion[], kept: readonly KeptRows[], hidden: Tensor, started: number): void {
    const decoding = portions.every(({ count }) => count === 1) ? portions.length : 0;
    this.choose(kept, decoding);
    const now = kept.filter((rows) => this.due(rows));
    for (const rows of kept) if (!now.includes(rows)) postpone(rows, hidden);
    if (now.length > 0) this.read(now, hidden);
    if (decoding > 0) this.measure(portions, now, started);
  }

  /** A step of those that decode does without drafts now and then, for comparison. */
  private choose(kept: readonly KeptRows[], decoding: number): void {
    const drafting = kept.filter(({ drafts }) => drafts);
    if (drafting.length === 0 || drafting.some(({ sequence }) => sequence.pinned)) return;
    if (decoding !== drafting.length || !this.costs.needsPlain(decoding)) return;
    for (const rows of drafting) rows.drafts = false;
  }

  /** Prompts are read as they come; what has ended is read for whoever goes on there. */
  private due({ sequence, count, from, drafts, ends }: KeptRows): boolean {
    if (count === 0) return ends && sequence.behind.count > 0;
    if (drafts || ends || from < sequence.settings.prompt.length) return true;
    return sequence.behind.count + count >= MOST_BEHIND;
  }

  private read(now: readonly KeptRows[], hidden: Tensor): void {
    const all = now.map((rows) => withBehind(rows));
    const { logits } = this.runner.draft(draftBatch(all), hiddenOf(all, hidden));
    const drafting = all.filter(({ drafts }) => drafts);
    drafting.forEach(({ sequence }, w) => {
      const { history, random, settings } = sequence;
      sequence.draft = this.sampler.draft(logits.rowsView(w, w + 1), settings.sampling, history, random);
    });
    for (const { sequence } of all) sequence.behind.count = 0;
  }

  private measure(portions: readonly Portion[], now: readonly KeptRows[], started: number): void {
    const drafted = portions.filter((portion) => portion.drafted).length;
    const plain = drafted === 0 && now.length === 0;
    const all = drafted === portions.length && now.length === drafted && now.every(({ drafts }) => drafts);
    if (plain || all) this.costs.note(portions.length, all, this.clock() - started);
  }
}

function postpone({ sequence, row, count }: KeptRows, hidden: Tensor): void {
  if (count > 0) sequence.behind.add(hidden, row, count);
}

const withBehind = (rows: KeptRows): ModuleRows => {
  const { count } = rows.sequence.behind;
  return { ...rows, from: rows.from - count, count: rows.count + count, behind: count };
};

/** What the module reads, close together; a part of `hidden` where it lies so already. */
function hiddenOf(all: readonly ModuleRows[], hidden: Tensor): Tensor {
  const [first] = all;
  if (all.length === 1 && first!.behind === 0) return hidden.rowsView(first!.row, first!.row + first!.count);
  const out = Tensor.zeros([all.reduce((n, { count }) => n + count, 0), hidden.cols], hidden.dtype);
  let at = 0;
  for (const { sequence, row, count, behind } of all) {
    sequence.behind.copyTo(out, at);
    copyRows(hidden, row, out, at + behind, count - behind);
    at += count;
  }
  return out;
}
