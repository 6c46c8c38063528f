import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import {
  hostFile,
  type Launch,
  mpiJob,
  mpirunLine,
  shellWord,
  slurmScript,
} from '../../src/expert/launch.js';

const LAUNCH: Launch = {
  nodes: 2,
  ranksPerNode: 4,
  threads: 3,
  command: ['train', '--out', "my runs/it's", '--expert-parallel', '8'],
};

/** Words that a shell makes of a command line, the command itself replaced. */
const words = (line: string): string[] =>
  spawnSync('sh', ['-c', line.replace(/^(exec srun|mpirun)/, "printf '%s\\n'")], { encoding: 'utf8' })
    .stdout.trimEnd()
    .split('\n');

describe('launch files', () => {
  it('quote words for a shell', () => {
    expect(shellWord('fp8:logfmt10')).toBe('fp8:logfmt10');
    expect(words(`mpirun ${shellWord("a 'b' $c")}`)).toEqual(["a 'b' $c"]);
  });

  it('for Slurm are a script that bash takes, with every word of the command', () => {
    const script = slurmScript(LAUNCH, 12);
    expect(spawnSync('bash', ['-n'], { input: script }).status).toBe(0);
    expect(script).toContain('#SBATCH --ntasks-per-node=4');
    const last = words(script.trimEnd().split('\n').at(-1)!);
    expect(last.slice(last.indexOf('fathom'))).toEqual(['fathom', ...LAUNCH.command, '--threads', '3']);
  });

  it('for mpirun name hosts and all ranks', () => {
    expect(hostFile(['a', 'b'], LAUNCH)).toBe('a slots=4\nb slots=4\n');
    const line = words(mpirunLine(LAUNCH, 'hosts.txt').trimEnd());
    expect(line.slice(0, 4)).toEqual(['-n', '8', '--hostfile', 'hosts.txt']);
    expect(line.slice(-2)).toEqual(['--threads', '3']);
  });

  it('tell ranks of planes, and mpirun to keep off them', () => {
    const launch = { ...LAUNCH, planes: ['eth1', 'eth2'] };
    const line = words(mpirunLine(launch, 'hosts.txt').trimEnd());
    expect(line.slice(-2)).toEqual(['--planes', 'eth1,eth2']);
    expect(line[line.indexOf('oob_tcp_if_exclude') + 1]).toBe('eth1,eth2');
    expect(slurmScript(launch, 1)).toContain('--planes eth1,eth2');
    const { command } = JSON.parse(mpiJob(launch, 'image:1')).spec.mpiReplicaSpecs.Launcher.template.spec
      .containers[0];
    expect(command.slice(-2)).toEqual(['--planes', 'eth1,eth2']);
  });

  it('for Kubernetes are an MPIJob with as many workers', () => {
    const { kind, spec } = JSON.parse(mpiJob(LAUNCH, 'image:1'));
    expect(kind).toBe('MPIJob');
    expect(spec.slotsPerWorker).toBe(4);
    expect(spec.mpiReplicaSpecs.Worker.replicas).toBe(2);
    const { command } = spec.mpiReplicaSpecs.Launcher.template.spec.containers[0];
    expect(command.slice(0, 3)).toEqual(['mpirun', '-n', '8']);
    expect(command).toContain("my runs/it's");
  });
});
