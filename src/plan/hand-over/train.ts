import { UserError } from '../../errors.js';
import type { ModelShape } from '../../spec/shape.js';
import { microBatches, planDevices, type TrainPlan } from '../train-plan.js';

/**
 * A training plan as settings of other stacks.
 * @param stack `megatron` or `torchtitan`
 * @param model the name that the plan was made for, for comments
 * @throws UserError for another stack
 */
export function trainSettings(stack: string, shape: ModelShape, plan: TrainPlan, model: string): string {
  if (stack === 'megatron') return megatron(shape, plan, model);
  if (stack === 'torchtitan') return torchtitan(plan, model);
  throw new UserError(
    `"${stack}" is no stack that a training plan can be written for; take megatron or torchtitan`,
  );
}

/** Arguments of Megatron-Core's `pretrain_gpt.py` (megatron/training/arguments.py). */
function megatron(shape: ModelShape, plan: TrainPlan, model: string): string {
  const { attention: a, experts } = shape;
  const lines = [
    `--num-layers ${shape.layers} --hidden-size ${shape.hiddenSize} --ffn-hidden-size ${shape.denseWidth}`,
    `--num-attention-heads ${a.heads} --seq-length ${plan.length} --max-position-embeddings ${plan.length}`,
    '--normalization RMSNorm --swiglu --disable-bias-linear --position-embedding-type rope',
    ...(shape.tiedEmbeddings ? [] : ['--untie-embeddings-and-output-weights']),
    ...(a.kind === 'mla' ? [latentArguments(shape)] : []),
    ...(a.kind === 'gqa' || a.kind === 'mqa'
      ? [`--group-query-attention --num-query-groups ${a.keyValueHeads}`]
      : []),
    ...(experts ? expertArguments(shape, plan.nodeLimit) : []),
    ...(shape.mtpDepth > 0 ? [`--mtp-num-layers ${shape.mtpDepth}`] : []),
    `--tensor-model-parallel-size ${plan.tensor} --pipeline-model-parallel-size ${plan.pipeline}`,
    ...(plan.context > 1 ? [`--context-parallel-size ${plan.context}`] : []),
    ...(experts ? [`--expert-model-parallel-size ${plan.expert} --expert-tensor-parallel-size 1`] : []),
    `--micro-batch-size ${plan.microBatch} --global-batch-size ${plan.globalBatch}`,
    ...(plan.tensor > 1 ? ['--sequence-parallel'] : []),
    ...(plan.zero > 0 ? ['--use-distributed-optimizer'] : []),
    ...(plan.recompute === 'full'
      ? ['--recompute-granularity full --recompute-method uniform --recompute-num-layers 1']
      : []),
    ...(plan.recompute === 'selective' ? [selective(shape)] : []),
    '--bf16',
    ...(plan.format === 'fp8' ? ['--fp8-format e4m3 --fp8-recipe blockwise'] : []),
    '--adam-beta1 0.9 --adam-beta2 0.95 --weight-decay 0.1 --clip-grad 1.0',
  ];
  return [...heading('#', plan, model, megatronLosses(plan)), ...lines].join('\n');
}

/** What the stack cannot do of the plan. */
function megatronLosses(plan: TrainPlan): string[] {
  const known: readonly TrainPlan['schedule'][] = ['1f1b', 'interleaved'];
  return known.includes(plan.schedule) ? [] : [`${plan.schedule} is not in Megatron-Core: it runs 1F1B`];
}

const latentArguments = ({ attention: a }: ModelShape): string =>
  [
    '--multi-latent-attention',
    ...(a.queryLatent === null ? [] : [`--q-lora-rank ${a.queryLatent}`]),
    `--kv-lora-rank ${a.latent} --qk-head-dim ${a.keyDepth - a.ropeDepth}`,
    `--qk-pos-emb-head-dim ${a.ropeDepth} --v-head-dim ${a.valueDepth}`,
  ].join(' ');

function expertArguments(shape: ModelShape, nodeLimit: number | null): string[] {
  const experts = shape.experts!;
  const pattern = `([0]*${shape.denseLayers}+[1]*${shape.layers - shape.denseLayers})`;
  return [
    `--num-experts ${experts.routed} --moe-router-topk ${experts.perToken} --moe-ffn-hidden-size ${experts.width}`,
    ...(experts.shared > 0
      ? [`--moe-shared-expert-intermediate-size ${experts.shared * experts.width}`]
      : []),
    `--moe-layer-freq "${pattern}" --moe-grouped-gemm --moe-token-dispatcher-type flex --moe-enable-deepep`,
    ...(experts.groups > 1
      ? [
          `--moe-router-num-groups ${experts.groups} --moe-router-group-topk ${nodeLimit ?? experts.groupsPerToken}`,
        ]
      : []),
    ...(experts.choiceBias ? ['--moe-router-enable-expert-bias --moe-router-score-function sigmoid'] : []),
  ];
}

function selective({ attention, experts }: ModelShape): string {
  const modules = [
    ...(attention.kind === 'mla' ? ['mla_up_proj'] : []),
    'layernorm',
    ...(experts ? ['moe_act'] : []),
  ];
  return `--recompute-granularity selective --recompute-modules ${modules.join(' ')}`;
}

/** Sections of a torchtitan job file (docs of torchtitan 0.1, `job_config`). */
function torchtitan(plan: TrainPlan, model: string): string {
  const shards = plan.zero >= 1 ? plan.data : 1;
  const schedules: Partial<Record<TrainPlan['schedule'], string>> = {
    gpipe: 'GPipe',
    '1f1b': '1F1B',
    interleaved: 'Interleaved1F1B',
    'zb-v': 'ZBVZeroBubble',
    'dualpipe-v': 'DualPipeV',
  };
  const schedule = schedules[plan.schedule];
  const losses = schedule
    ? []
    : [
        `${plan.schedule} is not in torchtitan: it runs ${plan.schedule === 'dualpipe' ? 'DualPipeV' : '1F1B'}`,
      ];
  const lines = [
    '[training]',
    `local_batch_size = ${plan.microBatch * microBatches(plan)}`,
    `global_batch_size = ${plan.globalBatch}`,
    `seq_len = ${plan.length}`,
    '',
    '[parallelism]',
    `data_parallel_replicate_degree = ${plan.data / shards}`,
    `data_parallel_shard_degree = ${shards}`,
    `tensor_parallel_degree = ${plan.tensor}`,
    `context_parallel_degree = ${plan.context}`,
    `pipeline_parallel_degree = ${plan.pipeline}`,
    `pipeline_parallel_schedule = "${schedule ?? (plan.schedule === 'dualpipe' ? 'DualPipeV' : '1F1B')}"`,
    `pipeline_parallel_microbatch_size = ${plan.microBatch}`,
    `expert_parallel_degree = ${plan.expert}`,
    '',
    '[activation_checkpoint]',
    `mode = "${plan.recompute}"`,
  ];
  return [...heading('#', plan, model, losses), ...lines].join('\n');
}

const heading = (mark: string, plan: TrainPlan, model: string, losses: readonly string[]): string[] => [
  `${mark} ${model} on ${planDevices(plan)} devices, from fathom plan train`,
  ...losses.map((loss) => `${mark} ${loss}`),
];
