/** Gate of DeepSeekMoE [TR §2.1.2; V2 §2.1.2]. */
export interface RouterShape {
  /** E. */
  experts: number;
  /** K. */
  topK: number;
  groups: number;
  topGroups: number;
  scoring: 'sigmoid' | 'softmax';
  /** noaux_tc: biased choice, group score = sum of its two best; greedy: no groups; group_limited_greedy: group score = its best. */
  method: 'noaux_tc' | 'greedy' | 'group_limited_greedy';
  normalize: boolean;
  scalingFactor: number;
}
