import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { searchPlans } from '../plan/search.js';
import { estimateTraining } from '../plan/train.js';
import { DEEPSEEK_V3_PLAN, type TrainPlan } from '../plan/train-plan.js';
import type { Ui } from '../report/ui.js';
import { machineNamed } from '../spec/machines.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { PUBLIC_MODELS } from '../spec/public-models.js';
import { parseModelShape } from '../spec/read-shape.js';
import { measure, secondsOf, type Timing } from './measure.js';
import { runPeerScript } from './peer.js';

/** How fast the planner is: one estimate, a search, and beside planners in Python. */

export interface PlanBenchOptions {
  /** Plans of DeepSeek-V3 on 2,048 H800 to predict. */
  plans: number;
  /** Beside llm-analysis. */
  peers: boolean;
  /** Beside Calculon, whose checkout this folder is. */
  calculon?: string;
}

export interface PlanPeer {
  name: string;
  version: string;
  configurations: number;
  secondsEach: number;
  /** Its time over ours of the same configurations, each estimated anew; and over ours in a search. */
  ratio: number;
  searchRatio: number;
}

export interface PlanReport {
  node: string;
  threads: number;
  /** Seconds of one estimate of DeepSeek-V3 on 2,048 H800, nothing kept from another; the target is 0.1 ms. */
  estimate: Timing;
  /** One thread, within this process. */
  search: { predicted: number; seconds: number; secondsEach: number };
  /** `fathom plan search` as a user runs it, on all cores: start, search and text. */
  command: { predicted: number; threads: number; seconds: number };
  /** The configurations that peers estimate as well, each anew. */
  dense: { configurations: number; secondsEach: number };
  peers: PlanPeer[];
}

const v3 = () => parseModelShape(MODEL_PRESETS['deepseek-v3']);
const h800s = () => ({ name: '2,048 H800', machine: machineNamed('h800'), nodes: 256 });

/** @throws UserError where a peer cannot run */
export async function benchPlan(options: PlanBenchOptions, ui: Ui): Promise<PlanReport> {
  const [shape, cluster] = [v3(), h800s()];
  // The search comes first: it has the code compiled, and an estimate alone is too short for that.
  const search = measureSearch(options.plans);
  const estimate = measure(() => void estimateTraining(shape, cluster, DEEPSEEK_V3_PLAN), 15);
  const dense = measureDense();
  const peers = await measurePeers(options, dense.secondsEach, search.secondsEach, ui);
  const command = measureCommand(options.plans);
  return { node: process.version, threads: availableParallelism(), estimate, search, command, dense, peers };
}

function measureSearch(plans: number): PlanReport['search'] {
  let predicted = 0;
  const seconds = secondsOf(() => {
    predicted = searchPlans(v3(), h800s(), {
      globalBatch: 15360,
      length: 4096,
      formats: ['fp8', 'bf16'],
      nodeLimits: [null],
      objective: 'step-time',
      mostStepSeconds: Number.POSITIVE_INFINITY,
      mostDollars: Number.POSITIVE_INFINITY,
      limit: plans,
    }).predicted;
  });
  return { predicted, seconds, secondsEach: seconds / predicted };
}

function measureCommand(plans: number): PlanReport['command'] {
  const main = fileURLToPath(new URL('../cli/main.js', import.meta.url));
  const args = [main, 'plan', 'search', '--limit', String(plans), '--json'];
  let text = '';
  const seconds = secondsOf(() => {
    const run = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 2 ** 28 });
    if (run.status !== 0) throw new Error(`fathom plan search ended with ${run.status}: ${run.stderr}`);
    text = run.stdout;
  });
  const { predicted } = JSON.parse(text) as { predicted: number };
  return { predicted, threads: availableParallelism(), seconds };
}

/** 70 G parameters without experts on 1,024 H100, which peers know as well. */
const DENSE: readonly Pick<TrainPlan, 'tensor' | 'pipeline' | 'data' | 'microBatch'>[] = [
  { tensor: 8, pipeline: 4, data: 32, microBatch: 1 },
  { tensor: 4, pipeline: 8, data: 32, microBatch: 1 },
  { tensor: 8, pipeline: 8, data: 16, microBatch: 2 },
  { tensor: 2, pipeline: 16, data: 32, microBatch: 1 },
  { tensor: 8, pipeline: 2, data: 64, microBatch: 1 },
  { tensor: 4, pipeline: 4, data: 64, microBatch: 2 },
];
const BATCH = { globalBatch: 1024, length: 4096 } as const;

const denseRun = { ...DEEPSEEK_V3_PLAN, expert: 1, schedule: '1f1b', format: 'bf16' } as const;

function measureDense(): PlanReport['dense'] {
  const { config } = PUBLIC_MODELS['llama-3.1-70b'];
  const plans = DENSE.map((sizes) => ({ ...denseRun, ...BATCH, ...sizes }));
  return { configurations: plans.length, secondsEach: secondsAnew(config, 128, plans) };
}

/** The example of Calculon's README, megatron-1T on 3,072 devices; a gated MLP with as many weights stands for its plain one. */
const MEGATRON_1T = {
  model_type: 'llama',
  hidden_size: 25600,
  intermediate_size: 68266,
  num_attention_heads: 160,
  num_key_value_heads: 160,
  num_hidden_layers: 128,
  vocab_size: 51200,
  max_position_embeddings: 2048,
  tie_word_embeddings: false,
  attention_bias: false,
  mlp_bias: false,
};
const CALCULON_PLAN: TrainPlan = {
  ...denseRun,
  ...{ tensor: 4, pipeline: 64, data: 12, microBatch: 4, globalBatch: 3072, length: 2048, recompute: 'full' },
};

/** Seconds of an estimate on H100s, nothing kept from another. */
function secondsAnew(config: Record<string, unknown>, nodes: number, plans: readonly TrainPlan[]): number {
  const shape = parseModelShape(config);
  const cluster = { name: `${8 * nodes} H100`, machine: machineNamed('h100'), nodes };
  const { median } = measure(() => {
    for (const plan of plans) estimateTraining(shape, cluster, plan);
  }, 15);
  return median / plans.length;
}

interface PeerTiming {
  version: string;
  configurations: number;
  secondsEach: number;
}

async function measurePeers(
  { peers, calculon }: PlanBenchOptions,
  denseEach: number,
  searchEach: number,
  ui: Ui,
): Promise<PlanPeer[]> {
  const named = async (name: string, script: string, argument: string, each: number): Promise<PlanPeer> => {
    const timing = (await runPeerScript(script, [argument], ui)) as PeerTiming;
    const { secondsEach } = timing;
    return { name, ...timing, ratio: secondsEach / each, searchRatio: secondsEach / searchEach };
  };
  const found: PlanPeer[] = [];
  if (peers)
    found.push(await besideLlmAnalysis((file) => named('llm-analysis', 'plan_peer.py', file, denseEach)));
  if (calculon !== undefined) {
    const each = secondsAnew(MEGATRON_1T, 384, [CALCULON_PLAN]);
    found.push(await named('Calculon', 'calculon_peer.py', path.resolve(calculon), each));
  }
  return found;
}

async function besideLlmAnalysis(run: (file: string) => Promise<PlanPeer>): Promise<PlanPeer> {
  const folder = mkdtempSync(path.join(tmpdir(), 'fathom-plan-'));
  try {
    const file = path.join(folder, 'configs.json');
    writeFileSync(file, JSON.stringify(DENSE.map((sizes) => ({ ...BATCH, ...sizes }))));
    return await run(file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
