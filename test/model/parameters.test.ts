import { describe, expect, it } from 'vitest';
import { countParameters, listParameters, PARTS } from '../../src/model/parameters.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';

const tiny = parseModelConfig(MODEL_PRESETS.tiny);
const names = (c = tiny) => listParameters(c).map((parameter) => parameter.name);
const size = (shape: readonly number[]) => shape.reduce((n, d) => n * d, 1);

describe('parameters', () => {
  it.each(Object.entries(MODEL_PRESETS))(
    'of %s are covered by their pieces, row by row, once',
    (_name, json) => {
      const parameters = listParameters(parseModelConfig(json));
      for (const { name, shape, pieces } of parameters) {
        let row = 0;
        for (const piece of pieces) {
          expect(piece.from, piece.name).toBe(row);
          row = piece.to;
        }
        expect(
          pieces.reduce((n, piece) => n + size(piece.shape), 0),
          name,
        ).toBe(size(shape));
      }
      const all = parameters.flatMap(({ pieces }) => pieces.map((piece) => piece.name));
      expect(new Set(all).size).toBe(all.length);
    },
  );

  it('follow the switches of the configuration', () => {
    expect(names()).toContain('model.layers.0.mlp.gate_up_proj.weight');
    expect(names()).toContain('model.layers.1.mlp.gate.e_score_correction_bias');
    expect(names({ ...tiny, topk_method: 'greedy' }).join()).not.toContain('e_score_correction_bias');
    expect(names({ ...tiny, q_lora_rank: null })).toContain('model.layers.2.self_attn.q_proj.weight');
    expect(names({ ...tiny, q_lora_rank: null }).join()).not.toContain('q_a_proj');
    expect(names({ ...tiny, tie_word_embeddings: true })).not.toContain('lm_head.weight');
    expect(names({ ...tiny, n_shared_experts: 0 }).join()).not.toContain('shared_experts');
  });

  it('put MTP module k in layer num_hidden_layers + k, with experts even where all layers are dense', () => {
    const c = { ...tiny, num_nextn_predict_layers: 2, first_k_dense_replace: 3 };
    const modules = listParameters(c).filter((parameter) => parameter.mtp);
    expect(new Set(modules.map((parameter) => parameter.layer))).toEqual(new Set([3, 4]));
    const projection = modules.find((parameter) => parameter.name === 'model.layers.4.eh_proj.weight');
    expect(projection?.shape).toEqual([128, 256]);
    expect(names(c)).toContain('model.layers.3.mlp.experts.down_proj');
    expect(names(c).filter((name) => name.includes('embed_tokens'))).toHaveLength(1);
  });
});

describe('counts', () => {
  it('add up over the parts', () => {
    const counted = countParameters(tiny);
    const trained = listParameters(tiny).filter((parameter) => parameter.kind !== 'buffer');
    const all = trained.reduce((n, parameter) => n + size(parameter.shape), 0);
    expect(counted.total + counted.mtp.total).toBe(all);
    expect(PARTS.reduce((n, part) => n + counted.byPart[part].total, 0)).toBe(counted.total);
  });

  it('have a tied head in use but not stored', () => {
    const tied = countParameters({ ...tiny, tie_word_embeddings: true });
    const untied = countParameters(tiny);
    expect(untied.total - tied.total).toBe(512 * 128);
    expect(tied.active).toBe(untied.active);
  });
});
