/** Speculative decoding with MTP drafts [ISCA §2.3.3; TR §5.4.3]. */

/**
 * Tokens that one step yields on average: the verified one and every draft up to the first that is refused.
 * @param acceptance of one draft, given that those before it were accepted
 */
export const tokensPerStep = (acceptance: number, depth = 1): number => {
  let tokens = 1;
  for (let k = 1; k <= depth; k++) tokens += acceptance ** k;
  return tokens;
};

/**
 * Generation speed against plain decoding.
 * @param overhead of a step that drafts and verifies, as a share of a plain step; 0 where memory or network bind it
 */
export const speculativeSpeedup = (acceptance: number, depth = 1, overhead = 0): number =>
  tokensPerStep(acceptance, depth) / (1 + overhead);
