import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Hosts of our own on one Linux machine: network namespaces with a host name each, joined by bridges over veth pairs whose
 * speed `tc` limits both ways. Within a host ranks share memory; between hosts Open MPI speaks TCP. Needs root.
 *
 * A host has one link on every plane of the network, `eth0`, `eth1`, …; each plane is a bridge of its own. With several planes
 * there is one link more, without a limit, which only `mpirun` uses, as clusters have a network for management.
 */
export interface Hosts {
  readonly count: number;
  /** Names of a host's links, by plane. */
  readonly planes: readonly string[];
  /** Arguments of mpirun that start so many ranks on each of the first `hosts`, all by default. */
  mpirun(perHost: number, hosts?: number): string[];
  /** Cuts or restores a host's link. */
  link(host: number, up: boolean, plane?: number): void;
  /** Bytes that the hosts have sent over each plane so far, with all headers. */
  sentBytes(): number[];
  close(): void;
}

/** Of the network that mpirun uses, beside planes 0, 1, …. */
const MANAGEMENT = 99;
const subnetOf = (plane: number): string => `10.77.${plane}`;
const bridgeOf = (plane: number): string => `fathombr${plane}`;
const namespaceOf = (host: number): string => `fathom${host}`;
const vethOf = (host: number, plane: number): string => `fathomv${host}p${plane}`;
const linkOf = (plane: number): string => `eth${plane}`;
const addressOf = (host: number, plane: number): string => `${subnetOf(plane)}.${host + 1}`;

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

/** @param bytesPerSecond of each link, each way */
export function makeHosts(count: number, bytesPerSecond: number, planes = 1): Hosts {
  const ofHosts = Array.from({ length: planes }, (_, plane) => plane);
  const networks = planes > 1 ? [...ofHosts, MANAGEMENT] : ofHosts;
  remove(count, networks);
  const folder = mkdtempSync(join(tmpdir(), 'fathom-hosts-'));
  const agent = join(folder, 'agent');
  const close = () => {
    remove(count, networks);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const plane of networks) addBridge(plane);
    for (let host = 0; host < count; host++) addHost(host, networks, bytesPerSecond);
    writeFileSync(agent, agentScript());
    chmodSync(agent, 0o755);
  } catch (error) {
    close();
    throw error;
  }
  return {
    count,
    planes: ofHosts.map(linkOf),
    mpirun: (perHost, hosts = count) => launchArguments(agent, hosts, perHost, networks.at(-1)!),
    link: (host, up, plane = 0) => must('ip', 'link', 'set', vethOf(host, plane), up ? 'up' : 'down'),
    sentBytes: () =>
      ofHosts.map((plane) => {
        let bytes = 0;
        for (let host = 0; host < count; host++) bytes += receivedBy(vethOf(host, plane));
        return bytes;
      }),
    close,
  };
}

/** Bytes that have come in over a link of this machine's. */
const receivedBy = (veth: string): number =>
  Number(readFileSync(`/sys/class/net/${veth}/statistics/rx_bytes`, 'utf8'));

function addBridge(plane: number): void {
  must('ip', 'link', 'add', bridgeOf(plane), 'type', 'bridge');
  must('ip', 'addr', 'add', `${subnetOf(plane)}.254/24`, 'dev', bridgeOf(plane));
  must('ip', 'link', 'set', bridgeOf(plane), 'up');
}

function addHost(host: number, networks: readonly number[], bytesPerSecond: number): void {
  const name = namespaceOf(host);
  const within = (...args: string[]) => must('ip', 'netns', 'exec', name, ...args);
  // Bursts of a millisecond, at least a few packets.
  const shape = ['rate', `${Math.round(bytesPerSecond * 8)}bit`, 'burst', '256kb', 'latency', '100ms'];
  must('ip', 'netns', 'add', name);
  within('ip', 'link', 'set', 'lo', 'up');
  for (const plane of networks) {
    const [veth, link] = [vethOf(host, plane), linkOf(plane)];
    must('ip', 'link', 'add', veth, 'type', 'veth', 'peer', 'name', link, 'netns', name);
    must('ip', 'link', 'set', veth, 'master', bridgeOf(plane), 'up');
    within('ip', 'addr', 'add', `${addressOf(host, plane)}/24`, 'dev', link);
    within('ip', 'link', 'set', link, 'up');
    if (plane === MANAGEMENT) continue;
    within('tc', 'qdisc', 'add', 'dev', link, 'root', 'tbf', ...shape);
    must('tc', 'qdisc', 'add', 'dev', veth, 'root', 'tbf', ...shape);
  }
}

function remove(count: number, networks: readonly number[]): void {
  for (let host = 0; host < count; host++) {
    for (const plane of networks) run('ip', 'link', 'del', vethOf(host, plane));
    run('ip', 'netns', 'del', namespaceOf(host));
  }
  for (const plane of networks) run('ip', 'link', 'del', bridgeOf(plane));
}

/** What Open MPI calls in place of ssh: enters the host's namespace, under a host name of its own. */
const agentScript = (): string => `#!/bin/sh
host=\${1##*.}; shift
n=$((host - 1))
exec ip netns exec fathom$n unshare --uts sh -c "hostname host$n; $*"
`;

/** @param network that mpirun uses, and, where there is no other, the ranks too */
function launchArguments(agent: string, count: number, perHost: number, network: number): string[] {
  const hosts = Array.from({ length: count }, (_, host) => `${addressOf(host, network)}:${perHost}`);
  const setting = (name: string, value: string) => ['--mca', name, value];
  return [
    ...['-n', `${count * perHost}`, '--host', hosts.join(','), '--map-by', `ppr:${perHost}:node`],
    ...['--bind-to', 'none', '--allow-run-as-root', '--oversubscribe'],
    ...setting('plm_rsh_agent', agent),
    ...setting('plm_rsh_no_tree_spawn', '1'),
    ...setting('btl', 'tcp,vader,self'),
    ...setting('btl_tcp_if_include', `${subnetOf(network)}.0/24`),
    ...setting('oob_tcp_if_include', `${subnetOf(network)}.0/24`),
    // So that mpirun gives a host up that it cannot reach, within about ten seconds.
    ...setting('oob_tcp_keepalive_time', '3'),
    ...setting('oob_tcp_keepalive_intvl', '2'),
    ...setting('oob_tcp_keepalive_probes', '3'),
  ];
}
