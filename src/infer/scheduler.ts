import { QueueFullError } from './engine.js';
import { PageAllocator } from './pages.js';
import { commonPrefix, type PrefixMatch, PrefixTree } from './prefix-tree.js';
import type { Sequence } from './sequence.js';

/** Rows of a step at most whose logits are wanted for the prompt's sake: they take 4 bytes a token of the vocabulary. Assumed. */
const SCORED_ROWS = 128;

/** What a sequence does in the next step. */
export interface Portion {
  sequence: Sequence;
  /** Known tokens to compute, from position `sequence.cached` on. */
  count: number;
  /** Whether the drafted token follows as one more row. */
  drafted: boolean;
  /** Whether the known tokens end here, so that the next one can be sampled. */
  complete: boolean;
}

export interface SchedulerSettings {
  pages: number;
  pageTokens: number;
  /** 1 where an MTP module has a cache layer. */
  lookahead: 0 | 1;
  /** Sequences that run together at most. */
  maxBatch: number;
  maxQueue: number;
  /** Prompt tokens of a step at most where nobody decodes, */
  prefillTokens: number;
  /** and beside so many rows of sequences that wait for their next token. */
  mixedPrefillTokens: (decodingRows: number) => number;
  copyPage: (from: number, to: number) => void;
}

/**
 * Decides who computes what in each step, and who holds which pages of the cache.
 *
 * - Sequences join and leave between steps. Every running sequence that decodes is in every step; prompts are read in
 *   chunks beside them, no more tokens at a time than stretch the step by a bounded factor, so that nobody's next
 *   token waits for a prompt.
 * - Prompts share the chunks: in turn the oldest one and the one that has been read least go first, so that a short
 *   prompt passes a long one and the long one still gets half of the steps.
 * - Admission is in order of arrival. A request that shares a beginning with a prompt that is being read waits for it
 *   and then finds its pages; others may pass it meanwhile.
 * - Without a free page, the least recently used prefix goes; without any, the youngest running sequence gives its pages
 *   back, waits at the head of the queue and goes on later where it was. The oldest one can always go on.
 */
export class Scheduler {
  readonly allocator: PageAllocator;
  readonly tree: PrefixTree;
  /** By arrival. */
  readonly running: Sequence[] = [];
  /** By arrival. */
  readonly waiting: Sequence[] = [];
  /** Of all admitted requests: tokens of their prompts, and those of them that were found in the cache. */
  promptTokens = 0;
  cachedTokens = 0;
  private arrivals = 0;
  private steps = 0;

  constructor(private readonly settings: SchedulerSettings) {
    this.allocator = new PageAllocator(settings.pages);
    this.tree = new PrefixTree(this.allocator, settings.pageTokens, settings.lookahead);
  }

  /** @throws QueueFullError where a request would be refused now */
  checkRoom(): void {
    const { maxBatch, maxQueue } = this.settings;
    const all = this.running.length + this.waiting.length;
    if (all < maxBatch + maxQueue) return;
    throw new QueueFullError(`${all} requests run or wait already; try again later`);
  }

  /** @throws QueueFullError */
  add(sequence: Sequence): void {
    this.checkRoom();
    sequence.order = this.arrivals++;
    this.waiting.push(sequence);
  }

  /** Takes a sequence out, wherever it is; its pages stay as a prefix until the room is needed. */
  remove(sequence: Sequence): void {
    const list = sequence.state === 'running' ? this.running : this.waiting;
    const at = list.indexOf(sequence);
    if (at >= 0) list.splice(at, 1);
    this.giveBack(sequence);
    sequence.state = 'ended';
  }

  /** Makes what a sequence has read of its prompt available to others. */
  share(sequence: Sequence): void {
    this.tree.insert(sequence.tokens.view, sequence.pages, sequence.filled, false);
  }

  /** The next step; empty where nothing is to be done. */
  plan(): Portion[] {
    this.steps++;
    this.admit();
    const portions: Portion[] = [];
    const decoding = this.running.filter(({ remaining }) => remaining === 1);
    for (const sequence of decoding) {
      if (sequence.state === 'running') this.addPortion(portions, sequence, 1);
    }
    const { prefillTokens, mixedPrefillTokens } = this.settings;
    let budget = prefillTokens;
    if (portions.length > 0) budget = Math.min(budget, mixedPrefillTokens(rowsOf(portions)));
    let scored = SCORED_ROWS;
    for (const sequence of this.prefilling()) {
      if (sequence.state !== 'running') continue;
      const count = Math.min(sequence.remaining, budget, sequence.scoring ? scored : budget);
      if (count === 0) continue;
      const taken = this.addPortion(portions, sequence, count);
      budget -= taken;
      if (sequence.scoring) scored -= taken;
    }
    return portions;
  }

  /** @throws Error where a page is lost or held too often */
  verify(): void {
    this.allocator.verify([...this.tree.held(), ...this.running.flatMap(({ pages }) => pages)]);
    const stray = this.waiting.find(({ pages }) => pages.length > 0);
    if (stray) throw new Error(`request ${stray.order} waits and holds ${stray.pages.length} pages`);
  }

  /** Running sequences with more than one token to read, in the order in which they are served in this step. */
  private prefilling(): Sequence[] {
    const found = this.running.filter(({ remaining }) => remaining > 1);
    if (this.steps % 2 === 0) found.sort((a, b) => a.cached - a.reused - (b.cached - b.reused));
    return found;
  }

  /** @returns the known tokens that the sequence computes in this step: 0 where no page is to be had */
  private addPortion(portions: Portion[], sequence: Sequence, count: number): number {
    const complete = count === sequence.remaining;
    const drafted = complete && sequence.draft !== undefined;
    const length = sequence.cached + count + (drafted ? 1 : 0);
    if (!this.ensurePages(sequence, length, portions)) return 0;
    portions.push({ sequence, count, drafted, complete });
    return count;
  }

  private ensurePages(sequence: Sequence, length: number, planned: readonly Portion[]): boolean {
    const { pages } = sequence;
    while (pages.length < this.pagesFor(length)) {
      const page = this.takePage() ?? this.takeFromYounger(sequence, planned);
      if (page === undefined) return false;
      pages.push(page);
    }
    return true;
  }

  private takePage(): number | undefined {
    return this.allocator.take() ?? (this.tree.evict() ? this.allocator.take() : undefined);
  }

  /** A page of the youngest sequence that is younger than `sequence` and has no part in this step. */
  private takeFromYounger(sequence: Sequence, planned: readonly Portion[]): number | undefined {
    const isPlanned = (other: Sequence) => planned.some((portion) => portion.sequence === other);
    for (;;) {
      const victim = this.running.findLast((other) => other.order > sequence.order && !isPlanned(other));
      if (!victim) return undefined;
      this.preempt(victim);
      const page = this.takePage();
      if (page !== undefined) return page;
    }
  }

  private preempt(victim: Sequence): void {
    this.running.splice(this.running.indexOf(victim), 1);
    this.giveBack(victim);
    victim.state = 'waiting';
    insertByOrder(this.waiting, victim);
  }

  private giveBack(sequence: Sequence): void {
    this.tree.insert(sequence.tokens.view, sequence.pages, sequence.filled, true);
    for (const page of sequence.pages) this.allocator.release(page);
    sequence.forget();
  }

  private admit(): void {
    for (let i = 0; i < this.waiting.length && this.running.length < this.settings.maxBatch; ) {
      const sequence = this.waiting[i]!;
      const verdict = this.tryAdmit(sequence);
      if (verdict === 'no room') return;
      if (verdict === 'later') i++;
      else this.waiting.splice(i, 1);
    }
  }

  private tryAdmit(sequence: Sequence): 'admitted' | 'no room' | 'later' {
    const { tokens } = sequence;
    const match = this.tree.match(tokens.view, sequence.reusable);
    if (!sequence.scoring && this.readsBeginningOf(sequence, match.length)) return 'later';
    // The original of a copy must stay until it is copied, which takes a page more: the last one, it may be.
    const found = this.startAt(sequence, match) || this.startAt(sequence, { ...match, partial: undefined });
    return found ? 'admitted' : 'no room';
  }

  /** Starts a sequence behind a stored prefix, where there is room for the rest of it. */
  private startAt(sequence: Sequence, { pages, partial }: Omit<PrefixMatch, 'length'>): boolean {
    const held = partial ? [...pages, partial.page] : pages;
    for (const page of held) this.allocator.retain(page);
    // One token more than the prompt, for the first of the continuation.
    const hasRoom = this.hasRoom(this.pagesFor(sequence.tokens.length + 1) - pages.length);
    if (hasRoom) this.start(sequence, pages, partial);
    for (const page of hasRoom ? held.slice(pages.length) : held) this.allocator.release(page);
    return hasRoom;
  }

  private start(sequence: Sequence, pages: readonly number[], partial: PrefixMatch['partial']): void {
    sequence.pages = [...pages];
    if (partial) {
      const copy = this.takePage()!;
      this.settings.copyPage(partial.page, copy);
      sequence.pages.push(copy);
    }
    sequence.cached = pages.length * this.settings.pageTokens + (partial?.count ?? 0);
    sequence.filled = sequence.cached;
    if (sequence.state === 'new') this.count(sequence);
    sequence.state = 'running';
    insertByOrder(this.running, sequence);
  }

  private count(sequence: Sequence): void {
    sequence.reused = sequence.cached;
    this.promptTokens += sequence.settings.prompt.length;
    this.cachedTokens += sequence.reused;
  }

  /** Whether an older sequence is reading tokens that this one begins with, a page more than the tree has. */
  private readsBeginningOf(sequence: Sequence, found: number): boolean {
    return this.running.some(
      (other) =>
        other.remaining > 1 &&
        other.order < sequence.order &&
        commonPrefix(other.tokens.view, sequence.tokens.view, 0) >= found + this.settings.pageTokens,
    );
  }

  /** Whether so many pages can be had, beside those that running sequences need for the tokens that they know. */
  private hasRoom(pages: number): boolean {
    const promised = this.running.reduce(
      (n, { tokens, pages: held }) => n + Math.max(0, this.pagesFor(tokens.length) - held.length),
      0,
    );
    const needed = pages + promised;
    return this.allocator.available >= needed || this.allocator.available + this.tree.evictable >= needed;
  }

  private pagesFor(tokens: number): number {
    return Math.ceil(tokens / this.settings.pageTokens);
  }
}

/** Last rows of a portion whose logits are wanted: all of a prompt that is scored, and those that tokens are sampled from. */
export const wantedRows = ({ sequence, count, drafted, complete }: Portion): number =>
  (sequence.scoring ? count : complete ? 1 : 0) + (drafted ? 1 : 0);

/** Rows of a step. */
export const rowsOf = (portions: readonly Portion[]): number =>
  portions.reduce((n, { count, drafted }) => n + count + (drafted ? 1 : 0), 0);

function insertByOrder(list: Sequence[], sequence: Sequence): void {
  const at = list.findIndex(({ order }) => order > sequence.order);
  list.splice(at < 0 ? list.length : at, 0, sequence);
}
