import { UserError } from '../../errors.js';
import type { ServePlan } from '../serve-plan.js';

/**
 * A serving plan as the command of another stack.
 * @param stack `vllm` or `sglang`
 * @param model name or folder of the checkpoint
 * @throws UserError for another stack
 */
export function serveCommand(stack: string, plan: ServePlan, model: string): string {
  if (stack === 'vllm') return vllm(plan, model);
  if (stack === 'sglang') return sglang(plan, model);
  throw new UserError(`"${stack}" is no stack that a serving plan can be written for; take vllm or sglang`);
}

const length = (plan: ServePlan): number => plan.context + plan.prompt;

/** Options of `vllm serve`. */
function vllm(plan: ServePlan, model: string): string {
  const data = plan.devices / plan.tensor;
  const draft = JSON.stringify({ method: 'mtp', num_speculative_tokens: plan.draftDepth });
  return command([
    `vllm serve ${model}`,
    `--tensor-parallel-size ${plan.tensor}`,
    ...(data > 1 ? [`--data-parallel-size ${data}`, '--enable-expert-parallel'] : []),
    `--max-num-seqs ${plan.batch}`,
    `--max-num-batched-tokens ${plan.prefillTokens}`,
    `--max-model-len ${length(plan)}`,
    ...(plan.overlap && data > 1 ? ['--enable-dbo'] : []),
    ...(plan.draftDepth > 0 ? [`--speculative-config '${draft}'`] : []),
  ]);
}

/** Options of `python -m sglang.launch_server`. */
function sglang(plan: ServePlan, model: string): string {
  const data = plan.devices / plan.tensor;
  return command([
    `python -m sglang.launch_server --model-path ${model}`,
    `--tp-size ${plan.devices}`,
    ...(data > 1
      ? [
          `--dp-size ${data}`,
          '--enable-dp-attention',
          `--ep-size ${plan.devices}`,
          '--moe-a2a-backend deepep',
        ]
      : []),
    `--max-running-requests ${plan.batch * data}`,
    `--chunked-prefill-size ${plan.prefillTokens * data}`,
    `--context-length ${length(plan)}`,
    ...(plan.overlap && data > 1 ? ['--enable-two-batch-overlap'] : []),
    ...(plan.draftDepth > 0
      ? [
          `--speculative-algorithm EAGLE --speculative-num-steps ${plan.draftDepth} --speculative-eagle-topk 1`,
        ]
      : []),
  ]);
}

const command = (parts: readonly string[]): string => parts.join(' \\\n  ');
