import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Hosts of our own on one Linux machine: network namespaces with a host name each, joined by a bridge over veth pairs whose
 * speed `tc` limits both ways. Within a host ranks share memory; between hosts Open MPI speaks TCP. Needs root.
 */
export interface Hosts {
  readonly count: number;
  /** Arguments of mpirun that start so many ranks on each of the first `hosts`, all by default. */
  mpirun(perHost: number, hosts?: number): string[];
  /** Cuts or restores a host's link. */
  link(host: number, up: boolean): void;
  close(): void;
}

const SUBNET = '10.77.0';
const BRIDGE = 'fathombr0';
const namespaceOf = (host: number): string => `fathom${host}`;
const vethOf = (host: number): string => `fathomv${host}`;
const addressOf = (host: number): string => `${SUBNET}.${host + 1}`;

function run(command: string, ...args: string[]): { ok: boolean; text: string } {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  return { ok: status === 0, text: error ? error.message : stderr.trim() };
}

function must(command: string, ...args: string[]): void {
  const { ok, text } = run(command, ...args);
  if (!ok) throw new Error(`${command} ${args.join(' ')}: ${text}`);
}

/** Why such hosts cannot be made here, or undefined. */
export function noHosts(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  for (const [tool, ...args] of [
    ['ip', '-V'],
    ['tc', '-V'],
  ] as const) {
    if (!run(tool, ...args).ok) return `${tool} is missing (Debian: sudo apt-get install iproute2)`;
  }
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const probe = run('ip', 'netns', 'add', 'fathomprobe');
  if (!probe.ok) return `network namespaces are not allowed here (${probe.text})`;
  run('ip', 'netns', 'del', 'fathomprobe');
  return undefined;
}

/** @param bytesPerSecond of each host's link, each way */
export function makeHosts(count: number, bytesPerSecond: number): Hosts {
  remove(count);
  const folder = mkdtempSync(join(tmpdir(), 'fathom-hosts-'));
  const agent = join(folder, 'agent');
  try {
    must('ip', 'link', 'add', BRIDGE, 'type', 'bridge');
    must('ip', 'addr', 'add', `${SUBNET}.254/24`, 'dev', BRIDGE);
    must('ip', 'link', 'set', BRIDGE, 'up');
    for (let host = 0; host < count; host++) addHost(host, bytesPerSecond);
    writeFileSync(agent, agentScript());
    chmodSync(agent, 0o755);
  } catch (error) {
    remove(count);
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  return {
    count,
    mpirun: (perHost, hosts = count) => launchArguments(agent, hosts, perHost),
    link: (host, up) => must('ip', 'link', 'set', vethOf(host), up ? 'up' : 'down'),
    close: () => {
      remove(count);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function addHost(host: number, bytesPerSecond: number): void {
  const [name, veth] = [namespaceOf(host), vethOf(host)];
  const within = (...args: string[]) => must('ip', 'netns', 'exec', name, ...args);
  // Bursts of a millisecond, at least a few packets.
  const shape = ['rate', `${Math.round(bytesPerSecond * 8)}bit`, 'burst', '256kb', 'latency', '100ms'];
  must('ip', 'netns', 'add', name);
  must('ip', 'link', 'add', veth, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  must('ip', 'link', 'set', veth, 'master', BRIDGE, 'up');
  within('ip', 'addr', 'add', `${addressOf(host)}/24`, 'dev', 'eth0');
  within('ip', 'link', 'set', 'eth0', 'up');
  within('ip', 'link', 'set', 'lo', 'up');
  within('tc', 'qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', ...shape);
  must('tc', 'qdisc', 'add', 'dev', veth, 'root', 'tbf', ...shape);
}

function remove(count: number): void {
  for (let host = 0; host < count; host++) {
    run('ip', 'link', 'del', vethOf(host));
    run('ip', 'netns', 'del', namespaceOf(host));
  }
  run('ip', 'link', 'del', BRIDGE);
}

/** What Open MPI calls in place of ssh: enters the host's namespace, under a host name of its own. */
const agentScript = (): string => `#!/bin/sh
host=\${1##*.}; shift
n=$((host - 1))
exec ip netns exec fathom$n unshare --uts sh -c "hostname host$n; $*"
`;

function launchArguments(agent: string, count: number, perHost: number): string[] {
  const hosts = Array.from({ length: count }, (_, host) => `${addressOf(host)}:${perHost}`);
  const setting = (name: string, value: string) => ['--mca', name, value];
  return [
    ...['-n', `${count * perHost}`, '--host', hosts.join(','), '--map-by', `ppr:${perHost}:node`],
    ...['--bind-to', 'none', '--allow-run-as-root', '--oversubscribe'],
    ...setting('plm_rsh_agent', agent),
    ...setting('plm_rsh_no_tree_spawn', '1'),
    ...setting('btl', 'tcp,vader,self'),
    ...setting('btl_tcp_if_include', `${SUBNET}.0/24`),
    ...setting('oob_tcp_if_include', `${SUBNET}.0/24`),
    // So that mpirun gives a host up that it cannot reach, within about ten seconds.
    ...setting('oob_tcp_keepalive_time', '3'),
    ...setting('oob_tcp_keepalive_intvl', '2'),
    ...setting('oob_tcp_keepalive_probes', '3'),
  ];
}
