import { describe, expect, it } from 'vitest';
import { countParameters } from '../../src/model/parameters.js';
import { checkTiles, parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS, type ModelPreset, TRAINABLE_PRESETS } from '../../src/spec/presets.js';

const count = (name: ModelPreset) => countParameters(parseModelConfig(MODEL_PRESETS[name], name));

describe('published models have their published sizes', () => {
  // Billions as printed. V3: README_WEIGHTS of the model (its 36.6 B activated include the output head, not the
  // embedding, as ours do); V2: arXiv 2405.04434; V2-Lite: its model card, which prints 2.4 where we count 2.45.
  it.each<[ModelPreset, string, number]>([
    ['deepseek-v3', '671', 36.6],
    ['deepseek-v2', '236', 21],
    ['deepseek-v2-lite', '15.7', 2.4],
  ])('%s: %s B, %d B activated', (name, total, active) => {
    const ours = count(name);
    expect((ours.total / 1e9).toFixed(total.split('.')[1]?.length ?? 0)).toBe(total);
    expect(Math.abs(ours.active / 1e9 / active - 1)).toBeLessThan(0.025);
  });

  it('counts the MTP module of DeepSeek-V3 apart: README_WEIGHTS says 11.5 B of its own, we count 11.6', () => {
    const { mtp } = count('deepseek-v3');
    expect(mtp.total / 1e9).toBeCloseTo(11.61, 2);
    // 1.5 B activated with the shared head's 0.93 B.
    expect((mtp.active + 129280 * 7168) / 1e9).toBeCloseTo(1.61, 2);
  });
});

describe('presets that train here', () => {
  it.each<[(typeof TRAINABLE_PRESETS)[number], number]>([
    ['tiny', 1.2e6],
    ['mini', 20e6],
    ['small', 120e6],
  ])('%s has about %d parameters', (name, about) => {
    expect(Math.abs(count(name).total / about - 1)).toBeLessThan(0.05);
  });

  it.each(TRAINABLE_PRESETS)('%s fills the tiles of FP8', (name) => {
    expect(() => checkTiles(parseModelConfig(MODEL_PRESETS[name]), name)).not.toThrow();
  });
});
