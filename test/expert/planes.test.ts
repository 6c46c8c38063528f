import { describe, expect, it } from 'vitest';
import { bindToPlane } from '../../src/expert/planes/bind.js';
import { checkPlanes } from '../../src/expert/planes/transport.js';
import { noMpi, onMpi, onThreads } from './ranks.js';

interface PlaneResult {
  result: unknown;
  told: string[];
  forwarded: number;
  late: number;
}

/** Two nodes of two ranks, one rank of each node on each plane. */
const NODES = { perNode: 2 };
const TRIP = {
  ...NODES,
  inner: 'trip',
  tokens: 300,
  topK: 4,
  hidden: 512,
  experts: 16,
  groups: 4,
  groupsPerToken: 3,
  dtype: 'f32',
  wire: 'fp32',
};
const TRAIN = { ...NODES, inner: 'train', precision: 'fp32', steps: 6 };
/** Sums of a few FP32 products: 2^-24 a step. */
const FP32 = 1e-5;

const transports = [
  { name: 'threads', run: onThreads, missing: undefined },
  { name: 'MPI', run: onMpi, missing: noMpi },
];

/** Messages and collectives of the case `messages` on one network. */
const plain = (options: object) => onThreads(4, 'messages', { ...NODES, ...options });

describe.each(transports)('planes: $name', ({ run, missing }) => {
  it.skipIf(missing)(`carry messages and collectives ${missing ?? ''}`, async () => {
    const results = (await run(4, 'planes', { ...NODES, inner: 'messages' })) as PlaneResult[];
    expect(results.map(({ result }) => result)).toEqual(await plain({}));
  });

  it.skipIf(missing)(`bring tokens to experts and back while one is down ${missing ?? ''}`, async () => {
    const results = (await run(4, 'planes', { ...TRIP, down: [3, 12] })) as PlaneResult[];
    for (const { result } of results) {
      for (const { y, dx, dweights } of (result as { errors: Record<'y' | 'dx' | 'dweights', number>[] })
        .errors) {
        expect(Math.max(y, dx, dweights)).toBeLessThan(FP32);
      }
    }
    // Ranks on the first plane lost messages, their neighbours forwarded them, and one rank of the first node told it.
    for (const rank of [0, 2]) expect(results[rank]!.late).toBeGreaterThan(0);
    for (const rank of [1, 3]) expect(results[rank]!.forwarded).toBeGreaterThan(0);
    expect(results[0]!.told[0]).toMatch(/^plane 0 between .* is silent/);
    expect(results.slice(1).flatMap(({ told }) => told)).toEqual([]);
  });

  it.skipIf(missing)(`train to the same bits, whole or not ${missing ?? ''}`, async () => {
    const whole = (await run(4, 'planes', TRAIN)) as PlaneResult[];
    const failing = (await run(4, 'planes', { ...TRAIN, down: [40, 45] })) as PlaneResult[];
    expect(whole.every(({ forwarded }) => forwarded === 0)).toBe(true);
    expect(failing[1]!.forwarded).toBeGreaterThan(0);
    expect(failing[0]!.told.at(-1)).toMatch(/works again$/);
    expect(failing.map(({ result }) => result)).toEqual(whole.map(({ result }) => result));
  });
});

describe('planes', () => {
  it('are taken by turns by the ranks of a host', () => {
    const bound = (place: number, planes: string[]) => {
      const environment: NodeJS.ProcessEnv = { OMPI_COMM_WORLD_LOCAL_RANK: `${place}` };
      bindToPlane(planes, environment, ['eth0', 'eth1']);
      return [environment.OMPI_MCA_btl_tcp_if_include, environment.UCX_NET_DEVICES];
    };
    expect([0, 1, 2].map((place) => bound(place, ['eth0', 'eth1'])[0])).toEqual(['eth0', 'eth1', 'eth0']);
    expect(bound(1, ['mlx5_0:1', 'mlx5_1:1'])).toEqual([undefined, 'mlx5_1:1']);
    expect(bound(1, ['10.1.0.0/16', '10.2.0.0/16'])[0]).toBe('10.2.0.0/16');
    expect(() => bound(1, ['eth0', 'eth7'])).toThrow(
      /names eth7, which is no network interface .* eth0, eth1/,
    );
  });

  it('must divide the ranks of a node, of which there must be several', () => {
    const placement = (size: number, perNode: number) => ({
      size,
      perNode,
      hosts: Array<string>(size).fill('a'),
    });
    expect(() => checkPlanes(placement(4, 4), 2)).toThrow(/all ranks are on one node/);
    expect(() => checkPlanes(placement(6, 3), 2)).toThrow(/do not divide the 3 ranks of a node/);
    checkPlanes(placement(8, 4), 2);
  });
});
