import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageAllocator } from '../../src/infer/pages.js';
import { commonPrefix, PrefixTree } from '../../src/infer/prefix-tree.js';

const PAGE = 3;

describe('pages', () => {
  it('are free again when the last holder lets go', () => {
    const pages = new PageAllocator(2);
    const [first, second] = [pages.take()!, pages.take()!];
    expect([pages.take(), pages.available]).toEqual([undefined, 0]);
    pages.retain(first);
    pages.release(first);
    expect(pages.available).toBe(0);
    pages.release(first);
    expect([pages.available, pages.take()]).toEqual([1, first]);
    pages.verify([first, second]);
    expect(() => pages.verify([first])).toThrow(`page ${second} counts 1 holders, but 0 hold it`);
    expect(() => pages.release(7)).toThrow('page 7 is held by nobody');
  });
});

/** What was stored: each sequence that went through, as far as it was filled. */
type Stored = { tokens: Int32Array; filled: number }[];

/** The longest prefix by comparing with every sequence. */
function longest(stored: Stored, tokens: Int32Array, limit: number, lookahead: number): number {
  const found = stored.map(({ tokens: other, filled }) =>
    Math.min(commonPrefix(other, tokens, 0) - lookahead, filled, limit),
  );
  return Math.max(0, ...found);
}

describe.each([0, 1] as const)('the prefix tree, lookahead %i', (lookahead) => {
  const sequence = fc.array(fc.nat(2), { minLength: 1, maxLength: 14 });

  it('finds the longest prefix of all that was stored, page for page', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(sequence, fc.nat(14), fc.boolean()), { maxLength: 12 }), (given) => {
        const pages = new PageAllocator(200);
        const tree = new PrefixTree(pages, PAGE, lookahead);
        const contents = new Map<number, number[]>();
        const stored: Stored = [];
        for (const [list, count, partial] of given) {
          const tokens = Int32Array.from(list);
          const limit = tokens.length - 1;
          const match = tree.match(tokens, limit);
          expect(match.length).toBe(longest(stored, tokens, limit, lookahead));
          const held = [...match.pages, ...(match.partial ? [match.partial.page] : [])];
          held.forEach((page, i) => {
            const length = Math.min(PAGE, match.length - i * PAGE);
            // What a page holds for its last position depends on the token after it.
            const end = i * PAGE + length + lookahead;
            expect(contents.get(page)!.slice(0, length + lookahead)).toEqual(list.slice(i * PAGE, end));
          });
          // A sequence that computes what is missing and is stored.
          const filled = Math.max(0, Math.min(tokens.length - lookahead, Math.max(count, match.length)));
          const own = match.pages.slice(0, Math.floor(filled / PAGE));
          for (const page of own) pages.retain(page);
          for (let i = own.length; i * PAGE < filled; i++) {
            const page = pages.take()!;
            own.push(page);
            contents.set(page, list.slice(i * PAGE, i * PAGE + PAGE + lookahead));
          }
          tree.insert(tokens, own, filled, partial);
          stored.push({ tokens, filled: partial ? filled : filled - (filled % PAGE) });
          for (const page of own) pages.release(page);
          pages.verify(tree.held());
        }
        while (tree.evict()) pages.verify(tree.held());
        expect(pages.available).toBe(200);
      }),
      { numRuns: 500, seed: 2 },
    );
  });

  it('gives up what nobody holds, longest unused first, and nothing that is held', () => {
    const pages = new PageAllocator(4);
    const tree = new PrefixTree(pages, PAGE, lookahead);
    const keep = (start: number) => {
      const tokens = Int32Array.of(start, 1, 1, 1);
      const page = pages.take()!;
      tree.insert(tokens, [page], PAGE, false);
      pages.release(page);
      return tokens;
    };
    const [a, b, c] = [keep(5), keep(6), keep(7)];
    const { pages: held } = tree.match(a, PAGE);
    pages.retain(held[0]!);
    expect(tree.evictable).toBe(2);
    const left = () => [a, b, c].map((tokens) => tree.match(tokens, PAGE).length > 0);
    expect(tree.evict()).toBe(true);
    expect(left()).toEqual([true, false, true]);
    expect(tree.evict()).toBe(true);
    expect(tree.evict()).toBe(false);
    expect(left()).toEqual([true, false, false]);
    pages.release(held[0]!);
    expect(tree.evict()).toBe(true);
  });
});
