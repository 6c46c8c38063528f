import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type ChosenPlan, pytorchJob, slurmPlan } from '../../src/plan/hand-over/launch.js';
import { DEEPSEEK_V3_PLAN } from '../../src/plan/train-plan.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { parseModelShape } from '../../src/spec/read-shape.js';
import { fathom } from '../cli/run.js';

const shape = parseModelShape(MODEL_PRESETS['deepseek-v3']);
const CHOSEN: ChosenPlan = { model: 'deepseek-v3', nodes: 256, devicesPerNode: 8, plan: DEEPSEEK_V3_PLAN };

/** Words that bash would start after `exec`. */
function started(script: string): string[] {
  const shown = script.replace(/^exec (srun )?torchrun/m, "printf '%s\\n' torchrun");
  return spawnSync('bash', ['-s', '--', '--data-path', 'x'], { input: shown, encoding: 'utf8' }).stdout.split(
    '\n',
  );
}

describe('a plan for Slurm', () => {
  it('starts Megatron on its devices, with arguments of the user behind those of the plan', () => {
    const script = slurmPlan('megatron', shape, CHOSEN, 12);
    expect(script).toContain('#SBATCH --nodes=256\n');
    expect(script).toContain('#SBATCH --gpus-per-node=8\n');
    const words = started(script);
    expect(words.slice(0, 3)).toEqual(['torchrun', '--nnodes=256', '--nproc-per-node=8']);
    expect(words.at(words.indexOf('--pipeline-model-parallel-size') + 1)).toBe('16');
    expect(words.at(words.indexOf('--moe-layer-freq') + 1)).toBe('([0]*3+[1]*58)');
    expect(words.slice(-3, -1)).toEqual(['--data-path', 'x']);
  });

  it('writes a job file for torchtitan first', () => {
    const script = slurmPlan('torchtitan', shape, CHOSEN, 12);
    expect(spawnSync('bash', ['-n'], { input: script }).status).toBe(0);
    expect(script).toMatch(/<<'END'\n\[training\][\s\S]*\nEND\nexec srun torchrun/);
  });
});

describe('a plan for Kubernetes', () => {
  it('is a job of one master and the other nodes as workers, whose shell words hold', () => {
    const { spec } = JSON.parse(pytorchJob('megatron', shape, CHOSEN, 'image:1'));
    expect(spec.nprocPerNode).toBe('8');
    expect(spec.pytorchReplicaSpecs.Worker.replicas).toBe(255);
    const [container] = spec.pytorchReplicaSpecs.Master.template.spec.containers;
    expect(container.resources.limits['nvidia.com/gpu']).toBe(8);
    expect(started(container.command[2])).toContain('--expert-model-parallel-size');
  });
});

describe('fathom launch --plan', () => {
  it('starts what fathom plan search has saved, and says what is wrong with a file', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'fathom-launch-'));
    const file = join(folder, 'plan.json');
    const search = ['plan', 'search', '--model', 'llama-3.1-8b', '--nodes', '2', '--batch', '64'];
    expect((await fathom([...search, '--save', file])).code).toBe(0);
    const { plan } = JSON.parse(readFileSync(file, 'utf8')) as ChosenPlan;
    const { stdout } = await fathom(['launch', '--plan', file]);
    expect(stdout).toContain('--nnodes=2 --nproc-per-node=8');
    expect(stdout).toContain(`--pipeline-model-parallel-size ${plan.pipeline}`);
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), nodes: 1 }));
    expect((await fathom(['launch', '--plan', file])).stderr).toMatch(
      /the plan needs 16 devices and 1 nodes have 8/,
    );
  });
});
