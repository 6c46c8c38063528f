import { describe, expect, it } from 'vitest';
import { attentionFlops, attentionForm } from '../../src/infer/attention-form.js';

/** Heads of DeepSeek-V3. */
const V3 = { heads: 128, nope: 128, rope: 64, v: 128, latent: 512 };
/** Heads for which expanding 2,000 tokens pays from about 85 new ones on. */
const SMALL = { heads: 16, nope: 64, rope: 32, v: 64, latent: 256 };

describe('form of attention', () => {
  it('counts what each form multiplies', () => {
    // Per head: one new token behind none; W^UK and W^UV 2·512·256, then one pair of 2·512 + 64 or 128 + 64 + 128 values.
    expect(attentionFlops({ ...V3, heads: 1 }, 0, 1)).toEqual({
      absorbed: 2 * 512 * 256 + 2 * 1088,
      expanded: 2 * 512 * 256 + 2 * 320,
    });
    expect(attentionFlops({ ...V3, heads: 1 }, 7, 1)).toEqual({
      absorbed: 2 * 512 * 256 + 8 * 2 * 1088,
      expanded: 8 * 2 * 512 * 256 + 8 * 2 * 320,
    });
  });

  it('expands prompts, and chunks that are long enough behind a prefix', () => {
    expect(attentionForm(V3, 0, 512)).toBe('expanded');
    expect(attentionForm(SMALL, 0, 2)).toBe('expanded');
    expect(attentionForm(SMALL, 2000, 80)).toBe('absorbed');
    expect(attentionForm(SMALL, 2000, 90)).toBe('expanded');
  });

  it('absorbs decoding and verification, whatever is cheaper', () => {
    for (const cached of [0, 1, 10, 5000]) expect(attentionForm(SMALL, cached, 1)).toBe('absorbed');
    for (const cached of [1, 10, 5000]) expect(attentionForm(SMALL, cached, 8)).toBe('absorbed');
  });

  it('never expands more than memory is meant for', () => {
    // 64 KB a token and layer.
    expect(attentionForm(V3, 3000, 1000)).toBe('expanded');
    expect(attentionForm(V3, 4000, 1000)).toBe('absorbed');
  });
});
