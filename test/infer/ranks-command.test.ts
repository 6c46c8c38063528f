import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { fathom, MAIN } from '../cli/run.js';
import { MPIRUN, mpirun, noMpi } from '../expert/ranks.js';
import { modelFolder } from './model-folder.js';

/** `mpirun … fathom generate` and `… serve` as a user meets them. */
const PROMPT = 'The state of the Union';
const FP32 = ['--cache', 'fp32', '--ctx', '128'];
const GREEDY = ['-p', PROMPT, '--temperature', '0', '--ignore-eos', '--max-tokens', '24', '--json'];

let folder: string;
beforeAll(async () => {
  folder = await modelFolder();
});

interface Generated {
  tokens: number[];
  ranks: { size: number; nodes: number; weightBytes: number[] };
  experts: { imbalance: number; placements: object[] };
}

const onRanks = (ranks: number, command: string, ...flags: string[]) =>
  mpirun(ranks, [process.execPath, MAIN, command, folder, ...flags]);

/** A server of so many ranks, and where it listens. */
async function startServer(
  ranks: number,
  ...flags: string[]
): Promise<{ child: ChildProcess; url: string; ended: Promise<{ code: number | null; stdout: string }> }> {
  const args = [process.execPath, MAIN, 'serve', folder, '--port', '0', ...FP32, ...flags];
  const child = spawn('mpirun', ['-n', `${ranks}`, ...MPIRUN, ...args]);
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  child.stdout.on('data', (data: Buffer) => {
    stdout += data.toString();
  });
  const ended = new Promise<{ code: number | null; stdout: string }>((resolve) =>
    child.on('close', (code) => resolve({ code, stdout })),
  );
  const url = new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      const found = /at (http:\S+)\/v1,/.exec(line)?.[1];
      if (found !== undefined) resolve(found);
    });
    void ended.then(({ code }) => reject(new Error(`the server ended with ${code}`)));
  });
  return { child, url: await url, ended };
}

describe.skipIf(noMpi)(`inference over MPI ${noMpi ?? ''}`, () => {
  it('generates the text of one process', async () => {
    const alone = await fathom(['generate', folder, ...FP32, ...GREEDY]);
    const more = [
      '--ranks-per-node',
      '2',
      '--redundant-experts',
      '4',
      '--rebalance-every',
      '5',
      '--checksums',
    ];
    const four = await onRanks(4, 'generate', ...FP32, ...GREEDY, '--wire', 'fp32', ...more);
    expect(four.code, four.stderr).toBe(0);
    const { tokens, ranks, experts } = JSON.parse(four.stdout) as Generated;
    expect(tokens).toEqual((JSON.parse(alone.stdout) as Generated).tokens);
    expect(ranks).toMatchObject({ size: 4, nodes: 2 });
    expect(experts.placements.length).toBeGreaterThan(0);
    expect(four.stderr).toMatch(/4 ranks on 2 nodes, .* of weights each, fp32:fp32; busiest rank/);
  });

  it('serves, shows how evenly experts are loaded, and ends with all ranks when its requests are done', async () => {
    const { child, url, ended } = await startServer(2, '--redundant-experts', '2', '--rebalance-every', '4');
    const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
    const send = (prompt: string, stream: boolean) =>
      fetch(`${url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: data[0]!.id, prompt, stream, max_tokens: 40, temperature: 0 }),
      });
    const ask = async (prompt: string) => {
      const answer = (await (await send(prompt, false)).json()) as { choices: { text: string }[] };
      return answer.choices[0]!.text;
    };
    const [one, two, three] = await Promise.all([ask(PROMPT), ask('null'), ask(PROMPT)]);
    expect(one).toBe(three);
    expect(two).not.toBe(one);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/^fathom_expert_imbalance 1[.\d]*$/m);
    expect(metrics).toMatch(/^fathom_expert_placements [1-9]/m);
    const last = await send(PROMPT, true);
    // mpirun passes this one on to its ranks.
    child.kill('SIGUSR2');
    expect(await last.text()).toMatch(/data: \[DONE\]\s*$/);
    const { code, stdout } = await ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d requests in .*\n2 ranks on 1 node/);
  });

  it.each([
    {
      ranks: 3,
      flags: [],
      message:
        "--expert-parallel 3 does not divide the model's 8 experts (n_routed_experts); take a divisor of 8",
    },
    {
      ranks: 2,
      flags: ['--redundant-experts', '3'],
      message: '8 experts and --redundant-experts 3 are no whole number for each of 2 ranks; take 4',
    },
    {
      ranks: 2,
      flags: ['--nodes-limit', '2'],
      message: '--nodes-limit 2 exceeds the 1 nodes that the experts are on',
    },
    { ranks: 2, flags: ['--max-tokens', '1000', '--ctx', '3'], message: 'the prompt has' },
  ])('refuses $flags on $ranks ranks in one line', async ({ ranks, flags, message }) => {
    const { code, stderr } = await onRanks(ranks, 'generate', ...GREEDY, ...flags);
    expect(code).toBe(1);
    expect(stderr).toContain(`fathom: ${message}`);
    expect(stderr.match(/^fathom: /gm)).toHaveLength(1);
  });

  it('refuses ranks with different models or options', async () => {
    const other = await modelFolder({ num_experts_per_tok: 3 });
    const command = (at: string) => [process.execPath, MAIN, 'generate', at, ...GREEDY];
    const { code, stderr } = await mpirun(1, [...command(folder), ':', '-n', '1', ...command(other)]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/the model or an option of rank 1 on \S+ differs from that of rank 0/);
  });
});
