import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ExchangeCase, ExchangeResult } from '../../src/bench/ep/exchange.js';
import { makeHosts, noHosts } from '../../src/bench/ep/hosts.js';
import { measurePlanes } from '../../src/bench/ep/planes.js';
import type { EpReport } from '../../src/bench/ep.js';
import { meanNodes } from '../../src/plan/node-limited.js';
import { noMpi } from './ranks.js';

const DIST = path.join(import.meta.dirname, '../../dist');
const missing = noMpi ?? noHosts();

describe.skipIf(noMpi)(`fathom bench ep ${noMpi ?? ''}`, () => {
  it('reports the exchange within this host', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-ep-'));
    const file = path.join(folder, 'ep.json');
    const flags = [
      '--ranks',
      '2',
      '--sizes',
      '64',
      '--training',
      'tiny',
      '--no-links',
      '--no-faults',
      '--out',
      file,
    ];
    const command = [path.join(DIST, 'cli/main.js'), 'bench', 'ep', ...flags];
    const { status, stderr, stdout } = spawnSync(process.execPath, command, { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    expect(stdout).toContain('of MPI_Alltoallv');
    const report = JSON.parse(fs.readFileSync(file, 'utf8')) as EpReport;
    fs.rmSync(folder, { recursive: true });
    const [{ result, dispatchBytes }] = report.sizes as [EpReport['sizes'][0]];
    // 8 tokens of 2 × 2048 bytes to one rank of each pair, there and back.
    expect(dispatchBytes).toBe(64 * 1024);
    expect(result.bytesPerRank).toBe(2 * 2 * 8 * 2 * 2048);
    expect(result.acrossBytes).toBe(0);
    expect(result.bareSeconds).toBeGreaterThan(0);
    const { oneRank, twoRanks } = report.training!;
    expect([oneRank.ranks, oneRank.overlapped, oneRank.plain.waitSeconds]).toEqual([1, null, 0]);
    for (const { seconds, passSeconds, codecSeconds } of [twoRanks.plain, twoRanks.overlapped!]) {
      expect(codecSeconds).toBeGreaterThan(0);
      expect(seconds).toBeGreaterThan(passSeconds);
    }
  });
});

describe.skipIf(missing)(`hosts of our own ${missing ?? ''}`, () => {
  it('get a token once each, as the estimate says', () => {
    const what: ExchangeCase = {
      tokens: 512,
      hidden: 256,
      topK: 4,
      experts: 32,
      groups: 2,
      groupsPerToken: 2,
      wire: 'fp8:bf16',
      rounds: 1,
      bare: false,
    };
    const hosts = makeHosts(2, 500e6);
    try {
      const order = JSON.stringify({ tasks: [{ kind: 'exchange', what }] });
      const command = [...hosts.mpirun(2), process.execPath, path.join(DIST, 'bench/ep/rank.js'), order];
      const { stdout, stderr } = spawnSync('mpirun', command, { encoding: 'utf8' });
      const line = /^@@ep (.*)$/m.exec(stdout);
      expect(line, stderr).not.toBeNull();
      const [result] = JSON.parse(line![1]!) as [ExchangeResult];
      // Half of the nodes that a token goes to is its own; 2,048 random tokens, each 0 or 1 copies: 3 deviations are 0.033.
      const nodes = meanNodes({ routed: 32, perToken: 4, groups: 2, groupsPerToken: 2 });
      expect(Math.abs(result.copiesPerToken - nodes / 2)).toBeLessThan(0.033);
      const copies = Math.round(result.copiesPerToken * 4 * what.tokens);
      expect(result.acrossBytes).toBe(copies * (256 * (1 + 4 / 128) + 256 * 2));
    } finally {
      hosts.close();
    }
  });

  it('send as much over each of two planes', async () => {
    const what = { tokens: 256, hidden: 512, topK: 4, experts: 32, groups: 2, groupsPerToken: 2 };
    const { split, sentBytes } = await measurePlanes(100e6, {
      ...what,
      wire: 'fp8:bf16',
      rounds: 2,
      bare: false,
    });
    const [first, second] = sentBytes as [number, number];
    // The exchanges that count, and more to warm up.
    expect(first + second).toBeGreaterThan(2 * split.acrossBytes);
    expect(Math.abs(first - second)).toBeLessThan(0.05 * first);
  });
});
