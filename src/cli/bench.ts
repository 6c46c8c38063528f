import { type Command, Option } from 'commander';
import { INFER_MODELS, type InferModel } from '../spec/presets.js';
import { CACHE_FORMATS, type CacheFormat, WEIGHT_FORMATS, type WeightFormat } from '../spec/serving.js';
import { addEpBench } from './bench-ep.js';
import { present } from './engine.js';
import { integer, real } from './options.js';
import { type Outcome, runs } from './session.js';

const LEVELS = ['portable', 'avx2', 'avx512', 'amx'] as const;

interface BenchFlags {
  threads?: number;
  isa?: (typeof LEVELS)[number];
  out?: string;
}

interface KernelFlags extends BenchFlags {
  only?: string;
}

interface TrainFlags extends BenchFlags {
  model: 'mini' | 'small';
  peer?: 'torch';
  steps: number;
  profile?: boolean;
}

interface ServeFlags {
  streams: number;
  seconds: number;
  prompt: number;
  tokens: number;
  weights?: WeightFormat;
  cache?: CacheFormat;
  threads?: number;
  out?: string;
}

interface InferFlags {
  model: InferModel;
  peer?: 'llama.cpp';
  weights?: WeightFormat;
  rounds: number;
  neighbour?: boolean;
  parity?: boolean;
  speculative?: boolean;
  threads?: number;
  out?: string;
}

/** `fathom bench kernels|train|infer|numerics|serve|network|plan`. */
export function addBench(program: Command): void {
  const bench = program.command('bench').description('measure this machine and what fathom makes of it');
  addKernels(bench);
  addTrainBench(bench);
  addInferBench(bench);
  addNumericsBench(bench);
  addServeBench(bench);
  addNetworkBench(bench);
  addPlanBench(bench);
  addEpBench(bench, save);
}

function addKernels(bench: Command): void {
  const command = bench
    .command('kernels')
    .description('measure every kernel as a share of what this machine can do')
    .option('--only <text>', 'only kernels whose name contains this');
  runs<KernelFlags>(addCommon(command, 'kernels'), async (session, { out, ...flags }) => {
    const { benchKernels } = await import('../bench/kernels.js');
    const { kernelText } = await import('../bench/kernel-text.js');
    const report = benchKernels(present(flags), session);
    return save(report, kernelText(report), out ?? defaultFile('kernels', flags.isa));
  });
}

function addTrainBench(bench: Command): void {
  const command = bench
    .command('train')
    .description('measure the training step in BF16 and FP8, beside PyTorch if wanted')
    .addOption(new Option('--model <name>', 'the preset').choices(['mini', 'small']).default('mini'))
    .addOption(
      new Option(
        '--peer <name>',
        'measure the same step there as well (FATHOM_PEERS: its Python environment)',
      ).choices(['torch']),
    )
    .option('--steps <n>', 'timed steps of each precision; with a peer, before and after it', integer(1), 7)
    .option('--profile', 'show what every op takes');
  runs<TrainFlags>(addCommon(command, 'train-MODEL'), async (session, { out, model, steps, ...flags }) => {
    const { benchTrain } = await import('../bench/train.js');
    const { trainText } = await import('../bench/train-text.js');
    const report = await benchTrain({ model, steps, ...present(flags) }, session);
    return save(report, trainText(report), out ?? defaultFile(`train-${model}`, flags.isa));
  });
}

function addInferBench(bench: Command): void {
  const command = bench
    .command('infer')
    .description('measure prefill and decoding of random weights, beside llama.cpp if wanted')
    .addOption(new Option('--model <name>', 'the preset').choices(INFER_MODELS).default('bench-1b'))
    .addOption(
      new Option(
        '--peer <name>',
        'measure the same there, on our GGUF (FATHOM_CACHE: where it is kept)',
      ).choices(['llama.cpp']),
    )
    .addOption(new Option('--weights <format>', 'measure this format only').choices(['int8', 'q4', 'bf16']))
    .option('--rounds <n>', 'times that everything is measured, in turn', integer(1), 3)
    .option('--neighbour', 'measure beside a process that takes a core, too')
    .option('--parity', 'compare greedy continuations of a trained model with those of llama.cpp instead')
    .option('--speculative', 'measure drafts of a model trained here (minutes, the first time) instead')
    .option('--threads <n>', 'threads (default: all CPUs)', integer(1, 1024))
    .option('--out <file>', 'where the results go as JSON (default: bench/results/infer-MODEL.json)');
  runs<InferFlags>(command, async (session, { out, parity, speculative, weights, ...flags }) => {
    const { inferText, parityText } = await import('../bench/infer-text.js');
    if (parity) {
      const { benchParity } = await import('../bench/parity.js');
      const report = await benchParity(flags.threads ?? 1, session);
      return save(report, parityText(report), out ?? defaultFile('infer-parity', undefined));
    }
    if (speculative) {
      const { benchSpeculative } = await import('../bench/speculative.js');
      const { speculativeText } = await import('../bench/speculative-text.js');
      const { rounds, threads } = flags;
      const given = { rounds, ...present({ threads, weights: weights && [weights] }) };
      const report = await benchSpeculative(given, session);
      return save(report, speculativeText(report), out ?? defaultFile('infer-speculative', undefined));
    }
    const { benchInfer } = await import('../bench/infer.js');
    const report = await benchInfer(
      { ...present(flags), ...flags, ...(weights ? { weights: [weights] } : {}) },
      session,
    );
    return save(report, inferText(report), out ?? defaultFile(`infer-${flags.model}`, undefined));
  });
}

function addNetworkBench(bench: Command): void {
  const command = bench
    .command('network')
    .description(
      'measure the flow engine on all-to-alls and the packet engine, beside what SimGrid and htsim took',
    )
    .option('--only <text>', 'only cases whose name contains this')
    .option('--long', 'also the cases that take a minute')
    .addOption(
      new Option('--peer <name>', 'run the same flows there too, and compare their ends').choices([
        'simgrid',
      ]),
    )
    .option('--out <file>', 'where the results go as JSON (default: bench/results/network.json)');
  runs<{ only?: string; long?: boolean; peer?: 'simgrid'; out?: string }>(
    command,
    async (session, { out, ...flags }) => {
      const { benchNetwork } = await import('../bench/network.js');
      const { networkText } = await import('../bench/network-text.js');
      const report = benchNetwork(present(flags), session);
      return save(report, networkText(report), out ?? defaultFile('network', undefined));
    },
  );
}

function addPlanBench(bench: Command): void {
  const command = bench
    .command('plan')
    .description('measure the planner: one estimate, a search, and beside planners in Python (FATHOM_PEERS)')
    .option('--plans <n>', 'plans of DeepSeek-V3 on 2,048 H800 to predict', integer(1), 100_000)
    .option('--no-peers', 'leave llm-analysis out')
    .option('--calculon <dir>', 'beside Calculon too: its checkout (https://github.com/calculon-ai/calculon)')
    .option('--out <file>', 'where the results go as JSON (default: bench/results/plan.json)');
  runs<{ plans: number; peers: boolean; calculon?: string; out?: string }>(
    command,
    async (session, { out, ...flags }) => {
      const { benchPlan } = await import('../bench/plan.js');
      const { planBenchText } = await import('../bench/plan-text.js');
      const report = await benchPlan(flags, session);
      return save(report, planBenchText(report), out ?? defaultFile('plan', undefined));
    },
  );
}

function addNumericsBench(bench: Command): void {
  const command = bench
    .command('numerics')
    .description('measure quantisation and LogFMT on one core, beside PyTorch and ml_dtypes (FATHOM_PEERS)')
    .option('--no-peers', 'leave PyTorch and ml_dtypes out');
  runs<BenchFlags & { peers: boolean }>(
    addOutput(command, 'numerics'),
    async (session, { out, ...flags }) => {
      const { benchNumerics } = await import('../bench/numerics.js');
      const { numericsText } = await import('../bench/numerics-text.js');
      const report = await benchNumerics(present(flags), session);
      return save(report, numericsText(report), out ?? defaultFile('numerics', flags.isa));
    },
  );
}

function addServeBench(bench: Command): void {
  const command = bench
    .command('serve')
    .description('measure the server under many streams, beside its engine alone')
    .argument('[dir]', 'a checkpoint folder with its tokenizer (default: bench-1b with random weights)')
    .option('--streams <n>', 'requests at work together', integer(1, 4096), 64)
    .option('--seconds <s>', 'how long new requests are made', real(0.1), 60)
    .option('--prompt <n>', 'tokens of each prompt', integer(1), 128)
    .option('--tokens <n>', 'tokens added to each prompt', integer(1), 64)
    .addOption(
      new Option('--weights <format>', 'how weights are kept (default: as stored)').choices(WEIGHT_FORMATS),
    )
    .addOption(new Option('--cache <format>', 'how the latent cache is kept').choices(CACHE_FORMATS))
    .option('--threads <n>', 'threads (default: all CPUs)', integer(1, 1024))
    .option('--out <file>', 'where the results go as JSON (default: bench/results/serve.json)');
  runs<ServeFlags>(command, async (session, flags, [folder]) => {
    const { benchServe } = await import('../bench/serve.js');
    const { randomModel } = await import('../bench/random-model.js');
    const { serveText } = await import('../bench/serve-text.js');
    const { streams, seconds, prompt, tokens, out, weights, cache, threads } = flags;
    const engine = { ...present({ weights, cache, threads }), maxBatch: streams, maxQueue: streams };
    const load = { streams, seconds, promptTokens: prompt, newTokens: tokens };
    const report = await benchServe(
      { folder: folder ?? randomModel('bench-1b', session), ...load, engine },
      session,
    );
    return save(report, serveText(report), out ?? defaultFile('serve', undefined));
  });
}

function addCommon(command: Command, file: string): Command {
  return addOutput(command, file).option('--threads <n>', 'threads (default: all CPUs)', integer(1, 1024));
}

function addOutput(command: Command, file: string): Command {
  return command
    .addOption(
      new Option('--isa <name>', 'an instruction-set level below the best of this CPU').choices(LEVELS),
    )
    .option('--out <file>', `where the results go as JSON (default: bench/results/${file}.json)`);
}

const defaultFile = (name: string, isa: string | undefined): string =>
  `bench/results/${name}${isa ? `-${isa}` : ''}.json`;

async function save(report: object, text: string, file: string): Promise<Outcome> {
  const { writeFileAtomicallySync, writeFully } = await import('../files.js');
  const content = Buffer.from(`${JSON.stringify(report, null, 2)}\n`);
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, content, 0));
  return { json: report, text: `${text}\n\nresults: ${file}` };
}
