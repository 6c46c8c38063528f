import { describe, expect, it } from 'vitest';
import { serveCommand } from '../../src/plan/hand-over/serve.js';
import { trainSettings } from '../../src/plan/hand-over/train.js';
import { DEFAULT_SERVE_PLAN } from '../../src/plan/serve-plan.js';
import { DEEPSEEK_V3_PLAN } from '../../src/plan/train-plan.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { PUBLIC_MODELS } from '../../src/spec/public-models.js';
import { parseModelShape } from '../../src/spec/read-shape.js';

const v3 = parseModelShape(MODEL_PRESETS['deepseek-v3']);

describe('settings for other stacks', () => {
  it('Megatron-Core: parallelism, experts and latents, and what it cannot do', () => {
    const text = trainSettings('megatron', v3, DEEPSEEK_V3_PLAN, 'deepseek-v3');
    expect(text).toContain('--tensor-model-parallel-size 1 --pipeline-model-parallel-size 16');
    expect(text).toContain('--expert-model-parallel-size 64');
    expect(text).toContain('--q-lora-rank 1536 --kv-lora-rank 512 --qk-head-dim 128');
    expect(text).toContain('--moe-layer-freq "([0]*3+[1]*58)"');
    expect(text).toContain('# dualpipe is not in Megatron-Core: it runs 1F1B');
  });

  it('Megatron-Core: a dense model has no experts and no latents', () => {
    const llama = parseModelShape(PUBLIC_MODELS['llama-3.1-8b'].config);
    const plan = { ...DEEPSEEK_V3_PLAN, expert: 1, schedule: '1f1b', format: 'bf16' } as const;
    const text = trainSettings('megatron', llama, plan, 'llama');
    expect(text).toContain('--group-query-attention --num-query-groups 8');
    expect(text).not.toMatch(/moe|latent|expert|fp8|is not in/);
  });

  it('torchtitan: degrees whose product is the devices', () => {
    const text = trainSettings('torchtitan', v3, DEEPSEEK_V3_PLAN, 'deepseek-v3');
    const degree = (name: string) => Number(new RegExp(`^${name} = (\\d+)$`, 'm').exec(text)?.[1]);
    const product =
      degree('data_parallel_replicate_degree') *
      degree('data_parallel_shard_degree') *
      degree('tensor_parallel_degree') *
      degree('pipeline_parallel_degree');
    expect(product).toBe(2048);
    expect(degree('expert_parallel_degree')).toBe(64);
  });

  it('vLLM and SGLang: data-parallel attention with experts spread', () => {
    const plan = { ...DEFAULT_SERVE_PLAN, devices: 16, draftDepth: 1 };
    expect(serveCommand('vllm', plan, 'm')).toContain(
      '--data-parallel-size 16 \\\n  --enable-expert-parallel',
    );
    expect(serveCommand('vllm', plan, 'm')).toContain(
      `--speculative-config '{"method":"mtp","num_speculative_tokens":1}'`,
    );
    expect(serveCommand('sglang', plan, 'm')).toContain('--dp-size 16 \\\n  --enable-dp-attention');
    expect(serveCommand('vllm', { ...plan, devices: 8, tensor: 8 }, 'm')).not.toContain(
      '--data-parallel-size',
    );
  });

  it('names the stacks that there are', () => {
    expect(() => trainSettings('jax', v3, DEEPSEEK_V3_PLAN, 'm')).toThrow(/take megatron or torchtitan/);
    expect(() => serveCommand('tgi', DEFAULT_SERVE_PLAN, 'm')).toThrow(/take vllm or sglang/);
  });
});
