import type { ModelPart } from '../plan/parameters.js';

/** Parts of a model, for people. */
export const PART_NAMES: Record<ModelPart, string> = {
  embedding: 'embedding',
  attention: 'attention',
  denseMlp: 'dense MLP',
  sharedExperts: 'shared experts',
  routedExperts: 'routed experts',
  gate: 'gates',
  norms: 'norms',
  head: 'output head',
  mtp: 'MTP modules',
};
