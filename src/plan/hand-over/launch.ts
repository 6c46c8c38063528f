import type { ModelShape } from '../../spec/shape.js';
import type { TrainPlan } from '../train-plan.js';
import { trainSettings } from './train.js';

/** Files that start a plan on a PyTorch stack: for Slurm, and for Kubernetes' training operator. */

/** A chosen plan and what it was chosen for, as `fathom plan search --save` writes it. */
export interface ChosenPlan {
  /** A preset, a `config.json` or its folder. */
  model: string;
  nodes: number;
  devicesPerNode: number;
  plan: TrainPlan;
}

export const STACKS = ['megatron', 'torchtitan'] as const;
export type Stack = (typeof STACKS)[number];

/** Port of PyTorch's rendezvous; any free one will do. */
const PORT = 29500;
const SETTINGS = 'plan.toml';

/** A batch script; `hours` bounds its time. Further arguments of the script, such as data and tokenizer, go to the stack. */
export function slurmPlan(stack: Stack, shape: ModelShape, chosen: ChosenPlan, hours: number): string {
  const { nodes, devicesPerNode } = chosen;
  const torchrun = [
    `srun torchrun --nnodes=${nodes} --nproc-per-node=${devicesPerNode}`,
    `--rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$first:${PORT}"`,
  ].join(' ');
  const { comments, settings } = settingsOf(stack, shape, chosen);
  return `#!/bin/bash
#SBATCH --job-name=fathom-plan
#SBATCH --nodes=${nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=${devicesPerNode}
#SBATCH --time=${hours}:00:00
${comments.join('\n')}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
${stack === 'megatron' ? megatronCommand(torchrun, settings) : torchtitanCommand(torchrun, settings)}
`;
}

const megatronCommand = (torchrun: string, settings: readonly string[]): string =>
  `exec ${torchrun} \\\n  pretrain_gpt.py \\\n${settings.map((line) => `  ${line} \\\n`).join('')}  "$@"`;

const torchtitanCommand = (torchrun: string, settings: readonly string[]): string =>
  `cat > ${SETTINGS} <<'END'\n${settings.join('\n')}\nEND\nexec ${torchrun} \\\n  -m torchtitan.train --job.config_file ${SETTINGS} "$@"`;

/** A PyTorchJob (kubeflow.org/v1) as JSON, which kubectl takes; `image` holds the stack. */
export function pytorchJob(stack: Stack, shape: ModelShape, chosen: ChosenPlan, image: string): string {
  const { nodes, devicesPerNode } = chosen;
  const { settings } = settingsOf(stack, shape, chosen);
  const shell =
    stack === 'megatron' ? megatronCommand('torchrun', settings) : torchtitanCommand('torchrun', settings);
  const container = {
    name: 'pytorch',
    image,
    // The operator tells torchrun of nodes, processes and rendezvous through its PET_ variables.
    command: ['bash', '-c', shell, 'plan'],
    resources: { limits: { 'nvidia.com/gpu': devicesPerNode } },
    volumeMounts: [{ name: 'shared-memory', mountPath: '/dev/shm' }],
  };
  const volumes = [{ name: 'shared-memory', emptyDir: { medium: 'Memory' } }];
  const template = { spec: { containers: [container], volumes } };
  const job = {
    apiVersion: 'kubeflow.org/v1',
    kind: 'PyTorchJob',
    metadata: { name: 'fathom-plan' },
    spec: {
      nprocPerNode: `${devicesPerNode}`,
      pytorchReplicaSpecs: {
        Master: { replicas: 1, restartPolicy: 'OnFailure', template },
        ...(nodes > 1 ? { Worker: { replicas: nodes - 1, restartPolicy: 'OnFailure', template } } : {}),
      },
    },
  };
  return `${JSON.stringify(job, null, 2)}\n`;
}

function settingsOf(stack: Stack, shape: ModelShape, { plan, model }: ChosenPlan) {
  const lines = trainSettings(stack, shape, plan, model).split('\n');
  return {
    comments: lines.filter((line) => line.startsWith('#')),
    settings: lines.filter((line) => !line.startsWith('#')),
  };
}
