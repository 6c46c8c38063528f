/** Files that start a command over ranks: for Slurm, for mpirun with a host file, and for Kubernetes' MPI operator. */

export interface Launch {
  nodes: number;
  ranksPerNode: number;
  /** CPUs of a rank. */
  threads: number;
  /** What `fathom` is to do, word by word. */
  command: readonly string[];
  /** A host's network interfaces, one on each plane of the network, where it has planes. */
  planes?: readonly string[] | undefined;
}

/** Characters that no shell gives a meaning to. */
const PLAIN = /^[\w@%+=:,./-]+$/;

/** One word for a POSIX shell. */
export const shellWord = (word: string): string =>
  PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** `fathom …` with the threads of a rank and the planes of the network. */
function commandWords({ command, threads, planes }: Launch): string[] {
  const added = (name: string, value: string) => (command.includes(name) ? [] : [name, value]);
  const ofPlanes = planes ? added('--planes', planes.join(',')) : [];
  return ['fathom', ...command, ...added('--threads', `${threads}`), ...ofPlanes];
}

/** The same for a shell. */
const commandLine = (launch: Launch): string => commandWords(launch).map(shellWord).join(' ');

/** What mpirun itself is told of planes: it is to use a network beside them, as they may fail one by one. */
const besidePlanes = ({ planes }: Launch): string[] =>
  planes ? ['--mca', 'oob_tcp_if_exclude', planes.join(',')] : [];

/** A batch script; `hours` bounds its time. */
export function slurmScript(launch: Launch, hours: number): string {
  const { nodes, ranksPerNode, threads } = launch;
  return `#!/bin/bash
#SBATCH --job-name=fathom
#SBATCH --nodes=${nodes}
#SBATCH --ntasks-per-node=${ranksPerNode}
#SBATCH --cpus-per-task=${threads}
#SBATCH --time=${hours}:00:00
# The folder of the run must be one that all nodes share. pmix is what Open MPI speaks; MPICH takes --mpi=pmi2.
exec srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores ${commandLine(launch)}
`;
}

/** A host file for Open MPI. */
export const hostFile = (hosts: readonly string[], { ranksPerNode }: Launch): string =>
  hosts.map((host) => `${host} slots=${ranksPerNode}\n`).join('');

/** @param file where the host file is */
export function mpirunLine(launch: Launch, file: string): string {
  const { nodes, ranksPerNode } = launch;
  const settings = [
    `-n ${nodes * ranksPerNode}`,
    `--hostfile ${shellWord(file)}`,
    // Neighbours in number are neighbours in memory.
    `--map-by ppr:${ranksPerNode}:node --bind-to none`,
    // Gives a host up that cannot be reached, within about ten seconds.
    '--mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 3',
    ...(launch.planes ? [besidePlanes(launch).map(shellWord).join(' ')] : []),
  ];
  return `mpirun ${settings.join(' ')} ${commandLine(launch)}\n`;
}

/** An MPIJob (kubeflow.org/v2beta1) as JSON, which kubectl takes; `image` holds fathom, its MPI addon and an SSH server. */
export function mpiJob(launch: Launch, image: string): string {
  const { nodes, ranksPerNode, threads } = launch;
  const container = (more: object) => ({ spec: { containers: [{ name: 'fathom', image, ...more }] } });
  const cpu = `${threads * ranksPerNode}`;
  const mpirun = [
    'mpirun',
    '-n',
    `${nodes * ranksPerNode}`,
    '--map-by',
    `ppr:${ranksPerNode}:node`,
    '--bind-to',
    'none',
    ...besidePlanes(launch),
  ];
  const job = {
    apiVersion: 'kubeflow.org/v2beta1',
    kind: 'MPIJob',
    metadata: { name: 'fathom' },
    spec: {
      slotsPerWorker: ranksPerNode,
      runPolicy: { cleanPodPolicy: 'Running' },
      mpiReplicaSpecs: {
        Launcher: {
          replicas: 1,
          template: container({ command: [...mpirun, ...commandWords(launch)] }),
        },
        Worker: {
          replicas: nodes,
          // Ranks of a pod share memory through /dev/shm, which is 64 MB by default.
          template: {
            spec: {
              containers: [
                {
                  name: 'fathom',
                  image,
                  resources: { limits: { cpu } },
                  volumeMounts: [{ name: 'shared-memory', mountPath: '/dev/shm' }],
                },
              ],
              volumes: [{ name: 'shared-memory', emptyDir: { medium: 'Memory' } }],
            },
          },
        },
      },
    },
  };
  return `${JSON.stringify(job, null, 2)}\n`;
}
