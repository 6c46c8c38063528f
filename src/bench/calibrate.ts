import { totalmem } from 'node:os';
import type { Addon, InstructionSet } from '../backend/native/addon.js';
import { nativeBackend } from '../backend/native/index.js';
import { fitOps, type OpSample, type StepWork } from '../plan/ops.js';
import type { Ui } from '../report/ui.js';
import type { GemmRate, Known, Machine, ReadPoint } from '../spec/machine.js';
import type { Backend } from '../tensor/backend.js';
import {
  FITTED,
  FITTED_SERVING,
  nameOf,
  prepare,
  type ServingCase,
  type StepCase,
  servingName,
} from './calibration-cases.js';
import { inTurn } from './in-turn.js';
import { measureInference, StoredPresets } from './inference-work.js';
import { kernelsOf, requireAddon } from './kernels.js';
import { type Ceilings, describeMachine, matrixPeak, measureCeilings } from './machine.js';
import { type Clock, clockOf } from './measure.js';
import { measureStep } from './step-work.js';

/** Measures the machine at hand into a Machine file. */

export interface CalibrateOptions {
  /** All CPUs by default. */
  threads?: number;
  /** Timed steps of each case. */
  steps: number;
}

/** How cases are timed. */
export interface Measuring {
  steps: number;
  clock: Clock;
}

/**
 * Measures ceilings and the engine's operations.
 * @throws UserError without the addon
 */
export async function calibrate(options: CalibrateOptions, ui: Ui): Promise<Machine> {
  const addon = requireAddon();
  const { isa } = addon.info();
  const threads = options.threads ?? addon.info().threads;
  const ceilings = measureCeilings(addon, kernelsOf(addon, isa), threads);
  const backend = nativeBackend(addon, threads, isa);
  const measuring = { steps: options.steps, clock: clockOf(threads) };
  const reading = measureReading(addon, isa);
  const steps = [
    ...(await sampleTraining(FITTED, backend, measuring, ui)),
    ...(await sampleServing(FITTED_SERVING, backend, measuring, ui)),
  ];
  const { cpu, date } = describeMachine(addon, isa);
  const source = `fathom calibrate, ${cpu}, ${threads} threads, ${date.slice(0, 10)}`;
  return {
    ...machineOf(
      cpu,
      ceilings,
      steps.flatMap(({ ops }) => ops),
      source,
    ),
    engine: { threads, source, reading, ops: fitOps(steps, reading) },
  };
}

/** Sizes whose reading is measured: from what a core's own cache holds to what lies in memory alone. */
const READ_BYTES = Array.from({ length: 13 }, (_, i) => 2 ** (18 + i));

/** With the threads that are set. More is never read faster than less: where it seems so, others disturbed the less. */
function measureReading(addon: Addon, isa: InstructionSet): ReadPoint[] {
  const rates = READ_BYTES.map((bytes) => kernelsOf(addon, isa).readRate(bytes));
  return READ_BYTES.map((bytes, i) => ({ bytes, bytesPerSecond: Math.max(...rates.slice(i)) }));
}

export async function sampleTraining(
  cases: readonly StepCase[],
  backend: Backend,
  { steps, clock }: Measuring,
  ui: Ui,
): Promise<StepWork<OpSample>[]> {
  return inTurn('calibrate', ui, cases, nameOf, (one) => {
    const { config, model } = prepare(one);
    return measureStep(config, model, backend, steps, clock).step;
  });
}

export async function sampleServing(
  cases: readonly ServingCase[],
  backend: Backend,
  { steps, clock }: Measuring,
  ui: Ui,
): Promise<StepWork<OpSample>[]> {
  const presets = new StoredPresets(backend);
  return inTurn(
    'calibrate inference',
    ui,
    cases,
    servingName,
    (one) => measureInference(one, presets.open(one.model), backend, 2 * steps, clock).step,
  );
}

/** The constants that plans of whole clusters need: one device, no network, rates of large operations. */
function machineOf(cpu: string, ceilings: Ceilings, samples: readonly OpSample[], source: string): Machine {
  const known = (value: number): Known => ({ value, source });
  const rateOf = (key: RegExp): GemmRate => {
    const rates = samples
      .filter((one) => key.test(one.key) && one.flops > 0)
      .map((one) => one.flops / one.seconds);
    return { flopsPerSecond: known(Math.max(...rates)), halfDepth: { value: 1, source: 'assumed' } };
  };
  const kernels = (format: string) => ({
    forward: rateOf(new RegExp(`^gemm \\w+ ${format}$`)),
    weightGradient: rateOf(new RegExp(`^gemmWgrad ${format}$`)),
  });
  const attention = {
    points: [{ keys: 256, flopsPerSecond: matrixPeak(ceilings) / 4 }],
    source: 'assumed: a quarter of the peak',
    latentShare: { value: 1, source: 'assumed' },
  };
  return {
    name: cpu,
    device: {
      memoryBytes: known(totalmem()),
      memoryBytesPerSecond: known(ceilings.read),
      peakFlopsPerSecond: {
        fp32: known(ceilings.fma32),
        bf16: known(matrixPeak(ceilings)),
        fp8: known(matrixPeak(ceilings)),
      },
      units: known(ceilings.threads),
      dollarsPerHour: { value: 0.1, source: 'assumed' },
    },
    node: { devices: 1, scaleUp: null, scaleOut: null },
    kernels: {
      gemm: {
        bf16: kernels('bf16'),
        fp8: kernels('e4m3'),
        tile: { value: 16, source: 'assumed: rows of an AMX tile' },
      },
      attention: { forward: attention, backward: attention },
      decodeAttentionFlopsPerSecond: {
        value: matrixPeak(ceilings) / 4,
        source: 'assumed: a quarter of the peak',
      },
      memoryShare: { value: 1, source: 'measured as reached' },
      elementwiseShare: { value: 1, source: 'measured as reached' },
      launchSeconds: { value: 5e-6, source: 'assumed' },
      communicationUnits: { value: 0, source: 'one device' },
      exchange: null,
      smallExchange: null,
    },
  };
}
