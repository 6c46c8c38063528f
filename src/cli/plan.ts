import { type Command, Option } from 'commander';
import { UserError } from '../errors.js';
import type { NetworkKind } from '../plan/network-check.js';
import { SCHEDULE_NAMES, type ScheduleName } from '../plan/pipeline/schedule.js';
import type { ServePlan } from '../plan/serve-plan.js';
import type { TrainPlan } from '../plan/train-plan.js';
import { devicesOf } from '../spec/machine.js';
import { present } from './engine.js';
import { integer, real } from './options.js';
import { addSearch } from './plan-find.js';
import {
  addInputOptions,
  FORMATS,
  type Format,
  type PlanInputFlags,
  readCluster,
  readShape,
} from './plan-input.js';
import { writeFigure } from './plan-search.js';
import { type Outcome, runs, type Session } from './session.js';

/** `fathom plan train|serve|what-if|search`. */
export function addPlan(program: Command): void {
  const group = program
    .command('plan')
    .description(
      'estimate training and serving on machines that need not be at hand, and search for the best plan',
    );
  addTrain(group);
  addServe(group);
  addWhatIf(group);
  addSearch(group);
}

// ---- Training -------------------------------------------------------------------------------------------------

const NETWORKS: readonly NetworkKind[] = ['multi-plane-fat-tree', 'multi-rail-fat-tree', 'fat-tree'];

interface TrainFlags extends PlanInputFlags {
  pp: number;
  ep?: number;
  dp?: number;
  tp: number;
  cp: number;
  schedule: ScheduleName;
  microBatch: number;
  batch: number;
  length: number;
  format: Format;
  recompute: TrainPlan['recompute'];
  zero: string;
  nodeLimit?: number;
  tokens: number;
  checkpointSeconds: number;
  restartSeconds: number;
  timeline?: string;
  network?: NetworkKind;
  handOver?: string;
}

function addTrain(group: Command): void {
  const command = group.command('train').description('estimate one step of training: time, memory, cost');
  addInputOptions(command)
    .option('--pp <n>', 'pipeline stages', integer(1), 16)
    .option('--ep <n>', 'devices that the experts are spread over (default: 64, or what fits)', integer(1))
    .option('--dp <n>', 'replicas with data of their own (default: what is left)', integer(1))
    .option('--tp <n>', 'tensor ranks', integer(1), 1)
    .option('--cp <n>', 'devices that share the tokens of a sequence', integer(1), 1)
    .addOption(
      new Option('--schedule <name>', 'order of the passes').choices(SCHEDULE_NAMES).default('dualpipe'),
    )
    .option('--micro-batch <n>', 'sequences of a micro-batch', integer(1), 1)
    .option('--batch <n>', 'sequences of a step', integer(1), 15360)
    .option('--length <n>', 'tokens of a sequence', integer(1), 4096)
    .addOption(new Option('--format <f>', 'of the GEMMs').choices(FORMATS).default('fp8'))
    .addOption(
      new Option('--recompute <what>', 'in the backward pass')
        .choices(['none', 'selective', 'full'])
        .default('selective'),
    )
    .addOption(new Option('--zero <stage>', 'what replicas share').choices(['0', '1', '2', '3']).default('1'))
    .option('--node-limit <n>', "nodes that a token may go to (default: the model's own limit)", integer(1))
    .option('--tokens <n>', 'of the whole run', real(1), 1e12)
    .option('--checkpoint-seconds <s>', 'that a checkpoint stops the run for', real(0), 60)
    .option('--restart-seconds <s>', 'from a failure to the next step', real(0), 600)
    .option('--timeline <file>', 'run the step event by event as well, and write its timeline as a figure')
    .addOption(
      new Option(
        '--network <topology>',
        "simulate the plan's communication on it flow by flow as well, beside the formulas",
      ).choices(NETWORKS),
    )
    .option('--hand-over <stack>', 'print settings for megatron or torchtitan in place of the estimate');
  runs<TrainFlags>(command, planTrain);
}

async function planTrain(_session: Session, flags: TrainFlags): Promise<Outcome> {
  const { estimateTraining, goodput, trainRun } = await import('../plan/train.js');
  const { largestTraining } = await import('../plan/largest.js');
  const { networkText, trainText } = await import('./plan-text.js');
  const shape = readShape(flags.model);
  const cluster = readCluster(flags, 256);
  const data = flags.dp ?? Math.max(1, Math.floor(devicesOf(cluster) / (flags.pp * flags.tp * flags.cp)));
  const plan: TrainPlan = {
    pipeline: flags.pp,
    expert: flags.ep ?? (shape.experts ? Math.min(64, data * flags.tp * flags.cp) : 1),
    data,
    tensor: flags.tp,
    context: flags.cp,
    schedule: flags.schedule,
    microBatch: flags.microBatch,
    globalBatch: flags.batch,
    length: flags.length,
    format: flags.format,
    recompute: flags.recompute,
    zero: Number(flags.zero) as TrainPlan['zero'],
    nodeLimit: flags.nodeLimit ?? null,
  };
  const estimate = estimateTraining(shape, cluster, plan);
  if (flags.handOver !== undefined) {
    const { trainSettings } = await import('../plan/hand-over/train.js');
    return handedOver(trainSettings(flags.handOver, shape, plan, flags.model));
  }
  const good = goodput(cluster, flags.checkpointSeconds, flags.restartSeconds);
  const run = trainRun(flags.tokens, cluster, estimate, good);
  const largest = largestTraining(shape, cluster, plan);
  const { checkNetwork } = await import('../plan/network-check.js');
  const checked = flags.network && checkNetwork(shape, cluster, plan, flags.network);
  const json = { plan, estimate, goodput: good, run, largest, ...present({ network: checked }) };
  const own = trainText(plan, estimate, good, run, largest);
  const text = checked ? `${own}\n\n${networkText(checked, flags.network!)}` : own;
  if (flags.timeline === undefined) return { json, text };
  const { simulateTraining } = await import('../plan/train-simulation.js');
  const { stepTimeline } = await import('../paper/step-timeline.js');
  const { eventsText } = await import('./plan-text.js');
  const simulation = simulateTraining(shape, cluster, plan);
  writeFigure(flags.timeline, stepTimeline(simulation).svg);
  const { stepSeconds, parts } = simulation;
  return {
    json: { ...json, events: { stepSeconds, parts } },
    text: `${text}\n\n${eventsText(simulation)}\n\n${flags.timeline}`,
  };
}

const handedOver = (text: string): Outcome => ({ json: { settings: text }, text });

// ---- Serving --------------------------------------------------------------------------------------------------

interface ServeFlags extends PlanInputFlags {
  devices?: number;
  tp: number;
  batch: number;
  context: number;
  prompt: number;
  prefillTokens: number;
  output: number;
  format: Format;
  overlap: boolean;
  drafts: number;
  acceptance: number;
  handOver?: string;
}

function addServe(group: Command): void {
  const command = group
    .command('serve')
    .description('estimate serving: time to the first token, per token, memory');
  addServeOptions(addInputOptions(command)).option(
    '--hand-over <stack>',
    'print a command for vllm or sglang in place of the estimate',
  );
  runs<ServeFlags>(command, planServe);
}

const addServeOptions = (command: Command): Command =>
  command
    .option('--devices <n>', 'devices that the experts are spread over (default: all)', integer(1))
    .option('--tp <n>', 'devices that share a sequence', integer(1), 1)
    .option('--batch <n>', 'sequences that a device decodes at a time', integer(1), 128)
    .option('--context <n>', 'tokens in the cache of each', integer(1), 4096)
    .option('--prompt <n>', 'tokens of a prompt', integer(1), 4096)
    .option('--prefill-tokens <n>', 'tokens that a device takes in at a time', integer(1), 16384)
    .option('--output <n>', 'tokens of an answer', integer(1), 1024)
    .addOption(new Option('--format <f>', 'of the weights').choices(FORMATS).default('fp8'))
    .option('--no-overlap', 'one micro-batch at a time')
    .option('--drafts <n>', 'MTP modules that draft', integer(0), 0)
    .option('--acceptance <p>', 'of a draft', real(0, 1), 0.85);

async function planServe(_session: Session, flags: ServeFlags): Promise<Outcome> {
  const { estimateServing } = await import('../plan/serve.js');
  const { serveText } = await import('./plan-text.js');
  const shape = readShape(flags.model);
  const cluster = readCluster(flags, 16);
  const plan = servePlan(flags, shape.experts !== null, devicesOf(cluster));
  const estimate = estimateServing(shape, cluster, plan);
  if (flags.handOver !== undefined) {
    const { serveCommand } = await import('../plan/hand-over/serve.js');
    return handedOver(serveCommand(flags.handOver, plan, flags.model));
  }
  return { json: { plan, estimate }, text: serveText(plan, estimate) };
}

const servePlan = (flags: ServeFlags, experts: boolean, all: number): ServePlan => ({
  devices: flags.devices ?? (experts ? all : flags.tp),
  tensor: flags.tp,
  batch: flags.batch,
  context: flags.context,
  prompt: flags.prompt,
  prefillTokens: flags.prefillTokens,
  output: flags.output,
  format: flags.format,
  cacheBytesPerValue: 2,
  overlap: flags.overlap,
  draftDepth: flags.drafts,
  acceptance: flags.acceptance,
});

// ---- What if --------------------------------------------------------------------------------------------------

interface WhatIfFlags extends PlanInputFlags {
  only?: string;
}

function addWhatIf(group: Command): void {
  const command = group
    .command('what-if')
    .description(
      "the paper's recommendations to hardware makers, each as a change of the machine: what is worth building",
    )
    .option('--only <list>', 'some of them, by id as --json shows them');
  addInputOptions(command);
  runs<WhatIfFlags>(command, planWhatIf);
}

async function planWhatIf(_session: Session, flags: WhatIfFlags): Promise<Outcome> {
  const { RECOMMENDATIONS, whatIf } = await import('../plan/what-if.js');
  const { DEEPSEEK_V3_PLAN } = await import('../plan/train-plan.js');
  const { DEFAULT_SERVE_PLAN } = await import('../plan/serve-plan.js');
  const { whatIfText } = await import('./plan-text.js');
  const wanted = flags.only?.split(',').map((id) => {
    const found = RECOMMENDATIONS.find((one) => one.id === id.trim());
    if (found) return found;
    throw new UserError(
      `no recommendation is called "${id}"; take some of ${RECOMMENDATIONS.map((one) => one.id).join(', ')}`,
    );
  });
  const effects = whatIf(
    readShape(flags.model),
    readCluster(flags, 256),
    DEEPSEEK_V3_PLAN,
    DEFAULT_SERVE_PLAN,
    wanted,
  );
  return { json: effects, text: whatIfText(effects) };
}
