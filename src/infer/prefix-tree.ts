import type { PageAllocator } from './pages.js';

/**
 * Prefixes whose pages are still in the cache: a tree with one page per edge. The pages of a finished request stay until
 * somebody needs the room, so that the next turn of a conversation, or another one with the same beginning, computes only
 * what is new.
 *
 * What a page holds at position p depends on the tokens 0..p, and in the layer of an MTP module also on token p+1
 * (`lookahead` 1). Hence a page is told by its own tokens and `lookahead` more: positions whose lookahead differs
 * are not found.
 */
interface Node {
  /** Tokens of the page and `lookahead` following ones. */
  tokens: Int32Array;
  /** Positions of the page that are filled; less than a page only in leaves. */
  filled: number;
  page: number;
  readonly parent: Node | undefined;
  /** By first token; nodes that share it are few. */
  readonly children: Map<number, Node[]>;
}

/** The longest stored prefix of a sequence. */
export interface PrefixMatch {
  /** Positions found. */
  length: number;
  /** Full pages, in order; to be shared. */
  pages: number[];
  /** The page that holds the last `count` positions, to be copied: others may go on differently in the original. */
  partial: { page: number; count: number } | undefined;
}

export class PrefixTree {
  private readonly root: Node = node(Int32Array.of(), 0, -1, undefined);
  /** Nodes from the least to the most recently used; children before their parents. */
  private readonly order = new Set<Node>();

  constructor(
    private readonly allocator: PageAllocator,
    private readonly pageTokens: number,
    /** Tokens after a position that its contents depend on: 1 where an MTP module has a cache layer. */
    private readonly lookahead: 0 | 1,
  ) {}

  /** The longest stored prefix of `tokens`, at most `limit` positions; becomes the most recently used. */
  match(tokens: Int32Array, limit: number): PrefixMatch {
    const pages: number[] = [];
    const path: Node[] = [];
    let partial: PrefixMatch['partial'];
    for (let from = 0, at = this.root; from < limit; from += this.pageTokens) {
      const [child, found] = this.bestChild(at, tokens, from, limit);
      if (!child || found === 0) break;
      path.push(child);
      if (found < this.pageTokens) {
        partial = { page: child.page, count: found };
        break;
      }
      pages.push(child.page);
      at = child;
    }
    this.touch(path);
    return { length: pages.length * this.pageTokens + (partial?.count ?? 0), pages, partial };
  }

  /**
   * Keeps the pages of a sequence whose first `filled` positions are in the cache. Pages that are stored already are left
   * alone; the tree holds the others itself, so the caller releases its own hold as usual.
   * @param tokens at least filled + lookahead of them, else fewer positions are kept
   * @param partial also the last page where it is not full: nobody may write into it any more, and the caller releases all. While
   *   it goes on, nothing is kept behind a page that it has twice: it would hold a child and not the parents, which then could be
   *   evicted in no order.
   */
  insert(tokens: Int32Array, pages: ArrayLike<number>, filled: number, partial: boolean): void {
    const known = Math.min(filled, tokens.length - this.lookahead);
    const path: Node[] = [];
    for (let from = 0, i = 0, at = this.root; from < known; from += this.pageTokens, i++) {
      const count = Math.min(this.pageTokens, known - from);
      if (count < this.pageTokens && !partial) break;
      const span = tokens.subarray(from, from + count + this.lookahead);
      at = this.store(at, span, count, pages[i]!);
      path.push(at);
      if (at.page !== pages[i] && !partial) break;
    }
    this.touch(path);
  }

  /** Frees the least recently used page that only the tree holds; false where there is none. */
  evict(): boolean {
    for (const found of this.order) {
      if (found.children.size > 0 || this.allocator.holders(found.page) > 1) continue;
      this.remove(found);
      return true;
    }
    return false;
  }

  /** Pages that `evict` can free, one after the other. */
  get evictable(): number {
    let count = 0;
    for (const { page } of this.order) if (this.allocator.holders(page) === 1) count++;
    return count;
  }

  /** Every page that the tree holds. */
  *held(): Iterable<number> {
    for (const { page } of this.order) yield page;
  }

  /** The child with most positions of `tokens` from `from` on, and how many; positions whose lookahead fits only. */
  private bestChild(
    parent: Node,
    tokens: Int32Array,
    from: number,
    limit: number,
  ): [Node | undefined, number] {
    let best: Node | undefined;
    let most = 0;
    for (const child of parent.children.get(tokens[from]!) ?? []) {
      const equal = commonPrefix(child.tokens, tokens, from);
      const found = Math.min(equal - this.lookahead, child.filled, limit - from);
      if (found > most) [best, most] = [child, found];
    }
    return [best, most];
  }

  /** The node under `parent` that holds `count` positions with the tokens `span`: one that is there, or a new one. */
  private store(parent: Node, span: Int32Array, count: number, page: number): Node {
    const siblings = parent.children.get(span[0]!) ?? [];
    for (const sibling of siblings) {
      const equal = commonPrefix(sibling.tokens, span, 0);
      if (equal === span.length) return sibling;
      if (equal === sibling.tokens.length) return this.lengthen(sibling, span, count, page);
    }
    const added = node(span.slice(), count, page, parent);
    this.allocator.retain(page);
    parent.children.set(span[0]!, [...siblings, added]);
    return added;
  }

  /** Puts a page with more positions in the place of one that holds the first of them. */
  private lengthen(old: Node, span: Int32Array, count: number, page: number): Node {
    this.allocator.retain(page);
    this.allocator.release(old.page);
    old.tokens = span.slice();
    old.filled = count;
    old.page = page;
    return old;
  }

  private remove(leaf: Node): void {
    const { parent, tokens } = leaf;
    const siblings = parent!.children.get(tokens[0]!)!.filter((other) => other !== leaf);
    if (siblings.length > 0) parent!.children.set(tokens[0]!, siblings);
    else parent!.children.delete(tokens[0]!);
    this.order.delete(leaf);
    this.allocator.release(leaf.page);
  }

  /** Makes a path from the root the most recently used, its end first. */
  private touch(path: readonly Node[]): void {
    for (let i = path.length - 1; i >= 0; i--) {
      this.order.delete(path[i]!);
      this.order.add(path[i]!);
    }
  }
}

const node = (tokens: Int32Array, filled: number, page: number, parent: Node | undefined): Node => ({
  tokens,
  filled,
  page,
  parent,
  children: new Map(),
});

/** How many tokens of `a` from its start equal those of `b` from `from`. */
export function commonPrefix(a: Int32Array, b: Int32Array, from: number): number {
  const length = Math.min(a.length, b.length - from);
  let i = 0;
  while (i < length && a[i] === b[from + i]) i++;
  return i;
}
