import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
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
  /** Address of the first host on plane 0. */
  readonly address: string;
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
/** Names and addresses of one set of hosts; `slot` tells sets apart that exist at once. */
const subnetOf = (slot: number, plane: number): string => `10.${100 + slot}.${plane}`;
const bridgeOf = (slot: number, plane: number): string => `fathomb${slot}p${plane}`;
const namespaceOf = (slot: number, host: number): string => `fathom${slot}h${host}`;
const vethOf = (slot: number, host: number, plane: number): string => `fathom${slot}h${host}p${plane}`;
const linkOf = (plane: number): string => `eth${plane}`;
const addressOf = (slot: number, host: number, plane: number): string =>
  `${subnetOf(slot, plane)}.${host + 1}`;
const SLOTS = 100;
const MOST_HOSTS = 9;

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
  const slot = takeSlot();
  const ofHosts = Array.from({ length: planes }, (_, plane) => plane);
  const networks = planes > 1 ? [...ofHosts, MANAGEMENT] : ofHosts;
  const folder = mkdtempSync(join(tmpdir(), 'fathom-hosts-'));
  const agent = join(folder, 'agent');
  const close = () => {
    remove(slot);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const plane of networks) addBridge(slot, plane);
    for (let host = 0; host < count; host++) addHost(slot, host, networks, bytesPerSecond);
    writeFileSync(agent, agentScript(slot));
    chmodSync(agent, 0o755);
  } catch (error) {
    close();
    throw error;
  }
  return {
    count,
    planes: ofHosts.map(linkOf),
    address: addressOf(slot, 0, 0),
    mpirun: (perHost, hosts = count) => launchArguments(agent, slot, hosts, perHost, networks.at(-1)!),
    link: (host, up, plane = 0) => must('ip', 'link', 'set', vethOf(slot, host, plane), up ? 'up' : 'down'),
    sentBytes: () =>
      ofHosts.map((plane) => {
        let bytes = 0;
        for (let host = 0; host < count; host++) bytes += receivedBy(vethOf(slot, host, plane));
        return bytes;
      }),
    close,
  };
}

/** Takes names that nobody uses, or whose user has ended without taking its hosts away. */
function takeSlot(): number {
  for (let slot = 0; slot < SLOTS; slot++) {
    const bridge = bridgeOf(slot, 0);
    if (!run('ip', 'link', 'add', bridge, 'type', 'bridge').ok) {
      if (isInUse(bridge)) continue;
      remove(slot);
      if (!run('ip', 'link', 'add', bridge, 'type', 'bridge').ok) continue;
    }
    must('ip', 'link', 'set', bridge, 'alias', `${process.pid}`);
    return slot;
  }
  throw new Error(`${SLOTS} sets of hosts are in use`);
}

/** Whether the process that made a bridge still runs. */
function isInUse(bridge: string): boolean {
  try {
    return existsSync(`/proc/${readFileSync(`/sys/class/net/${bridge}/ifalias`, 'utf8').trim() || 'self'}`);
  } catch {
    return false;
  }
}

/** Bytes that have come in over a link of this machine's. */
const receivedBy = (veth: string): number =>
  Number(readFileSync(`/sys/class/net/${veth}/statistics/rx_bytes`, 'utf8'));

function addBridge(slot: number, plane: number): void {
  const bridge = bridgeOf(slot, plane);
  if (plane > 0) must('ip', 'link', 'add', bridge, 'type', 'bridge');
  must('ip', 'addr', 'add', `${subnetOf(slot, plane)}.254/24`, 'dev', bridge);
  must('ip', 'link', 'set', bridge, 'up');
}

function addHost(slot: number, host: number, networks: readonly number[], bytesPerSecond: number): void {
  const name = namespaceOf(slot, host);
  const within = (...args: string[]) => must('ip', 'netns', 'exec', name, ...args);
  // Bursts of a millisecond, at least a few packets.
  const shape = ['rate', `${Math.round(bytesPerSecond * 8)}bit`, 'burst', '256kb', 'latency', '100ms'];
  must('ip', 'netns', 'add', name);
  within('ip', 'link', 'set', 'lo', 'up');
  for (const plane of networks) {
    const [veth, link] = [vethOf(slot, host, plane), linkOf(plane)];
    must('ip', 'link', 'add', veth, 'type', 'veth', 'peer', 'name', link, 'netns', name);
    must('ip', 'link', 'set', veth, 'master', bridgeOf(slot, plane), 'up');
    within('ip', 'addr', 'add', `${addressOf(slot, host, plane)}/24`, 'dev', link);
    within('ip', 'link', 'set', link, 'up');
    if (plane === MANAGEMENT) continue;
    within('tc', 'qdisc', 'add', 'dev', link, 'root', 'tbf', ...shape);
    must('tc', 'qdisc', 'add', 'dev', veth, 'root', 'tbf', ...shape);
  }
}

/** Takes away whatever a slot has; its first bridge last, as that is what says that it is taken. */
function remove(slot: number): void {
  const links = readdirSync('/sys/class/net');
  for (const link of links) if (link.startsWith(`fathom${slot}h`)) run('ip', 'link', 'del', link);
  for (let host = 0; host < MOST_HOSTS; host++) run('ip', 'netns', 'del', namespaceOf(slot, host));
  const bridges = links.filter((link) => link.startsWith(bridgeOf(slot, 0).slice(0, -1)));
  for (const bridge of bridges.filter((name) => name !== bridgeOf(slot, 0))) run('ip', 'link', 'del', bridge);
  run('ip', 'link', 'del', bridgeOf(slot, 0));
}

/** What Open MPI calls in place of ssh: enters the host's namespace, under a host name of its own. */
const agentScript = (slot: number): string => `#!/bin/sh
host=\${1##*.}; shift
n=$((host - 1))
exec ip netns exec fathom${slot}h$n unshare --uts sh -c "hostname host$n; $*"
`;

/** @param network that mpirun uses, and, where there is no other, the ranks too */
function launchArguments(
  agent: string,
  slot: number,
  count: number,
  perHost: number,
  network: number,
): string[] {
  const hosts = Array.from({ length: count }, (_, host) => `${addressOf(slot, host, network)}:${perHost}`);
  const setting = (name: string, value: string) => ['--mca', name, value];
  return [
    ...['-n', `${count * perHost}`, '--host', hosts.join(','), '--map-by', `ppr:${perHost}:node`],
    ...['--bind-to', 'none', '--allow-run-as-root', '--oversubscribe'],
    ...setting('plm_rsh_agent', agent),
    ...setting('plm_rsh_no_tree_spawn', '1'),
    ...setting('btl', 'tcp,vader,self'),
    ...setting('btl_tcp_if_include', `${subnetOf(slot, network)}.0/24`),
    ...setting('oob_tcp_if_include', `${subnetOf(slot, network)}.0/24`),
    // So that mpirun gives a host up that it cannot reach, within about ten seconds.
    ...setting('oob_tcp_keepalive_time', '3'),
    ...setting('oob_tcp_keepalive_intvl', '2'),
    ...setting('oob_tcp_keepalive_probes', '3'),
  ];
}
