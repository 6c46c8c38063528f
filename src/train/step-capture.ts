import fs from 'node:fs';
import path from 'node:path';
import { makeFolder, withFileErrors } from '../files.js';
import { layerOf } from '../model/parameters.js';
import { type StoredType, type TensorToWrite, writeSafetensors } from '../model/safetensors.js';
import type { ModelConfig } from '../spec/model.js';
import type { Observer } from '../tensor/observer.js';
import { Tensor, type TensorData } from '../tensor/tensor.js';
import type { CAPTURE_KINDS } from './capture.js';
import { chosenExperts } from './validation.js';

/**
 * Tensors of one training step for `RUN/capture`, in the format of `capture.ts`. What is kept is bounded: of the layers the
 * first, the first with experts, the middle and the last; of each the Linears below; of these at most `ROWS` rows of input and
 * output gradient, as many of the experts' outputs before combine, and `WEIGHT_ROWS` rows of the weight. Choices of experts,
 * `routing.layers.N.stepS` i32 [T, K], are kept of all layers. Everything is of the step's first micro-batch.
 */

/** Inputs: of the attention, after the attention, of the MLP, between its matrices. */
const LINEARS =
  /^model\.(layers\.\d+\.(?:self_attn\.(?:q_a_proj|q_proj|o_proj)|mlp\.(?:experts\.)?(?:gate_up_proj|down_proj)))(?:\.weight)?$/;
const EXPERT_OUTPUT = /\.experts\.down_proj$/;

const ROWS = 512;
const WEIGHT_ROWS = 1024;
/** Rows come in blocks of a scaling tile, so that tiles along the rows (Wgrad) are those of the run. */
const BLOCK = 128;

type CaptureKind = (typeof CAPTURE_KINDS)[number];

const STORED: Partial<Record<Tensor['dtype'], StoredType>> = { f32: 'F32', bf16: 'BF16', i32: 'I32' };

/** Copies what passes the observer; training is not touched. */
export class StepCapture {
  private readonly tensors: { name: string; tensor: Tensor }[] = [];
  private readonly layers: ReadonlySet<number>;

  constructor(
    config: ModelConfig,
    /** The step as it counts once it is done. */
    readonly step: number,
  ) {
    this.layers = sampledLayers(config);
  }

  readonly observer: Observer = {
    linear: (w, x, y) => {
      const what = this.sampled(w.name);
      if (what === undefined) return;
      this.keep('weights', what, w.value, WEIGHT_ROWS);
      this.keep('activations', what, x, ROWS);
      if (EXPERT_OUTPUT.test(what)) this.keep('combine', what, y, ROWS);
    },
    linearBackward: (w, dy) => {
      const what = this.sampled(w.name);
      if (what !== undefined) this.keep('gradients', what, dy, ROWS);
    },
    routed: (gate, choice) => {
      const tensor = new Tensor(choice.slot.shape, 'i32', chosenExperts(choice));
      this.tensors.push({ name: this.nameOf('routing', `layers.${layerOf(gate.name)}`), tensor });
    },
  };

  /** Writes `step-S.safetensors` into `folder`. @throws UserError when the disk fails */
  write(folder: string): void {
    makeFolder(folder);
    writeSafetensors(path.join(folder, fileOf(this.step)), this.tensors.map(toWrite));
  }

  /** Name within the capture of a Linear that is sampled. */
  private sampled(parameter: string): string | undefined {
    return this.layers.has(layerOf(parameter)) ? LINEARS.exec(parameter)?.[1] : undefined;
  }

  private keep(kind: CaptureKind, what: string, tensor: Tensor, limit: number): void {
    this.tensors.push({ name: this.nameOf(kind, what), tensor: copyRows(tensor, limit) });
  }

  private nameOf(kind: CaptureKind | 'routing', what: string): string {
    return `${kind}.${what}.step${this.step}`;
  }
}

const fileOf = (step: number): string => `step-${step}.safetensors`;

/** Removes the captures of steps after `step`, as when a run goes back to a checkpoint. */
export function removeCapturesAfter(folder: string, step: number): void {
  const files = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  for (const file of files) {
    const of = /^step-(\d+)\.safetensors$/.exec(file);
    if (!of || Number(of[1]) <= step) continue;
    withFileErrors('remove', path.join(folder, file), () => fs.rmSync(path.join(folder, file)));
  }
}

const sampledLayers = ({ num_hidden_layers: count, first_k_dense_replace: firstMoe }: ModelConfig) =>
  new Set([0, firstMoe, Math.floor(count / 2), count - 1].filter((layer) => layer < count));

/** At most `limit` rows of a matrix [rows, cols] in evenly spread blocks of `BLOCK`, in memory of their own. */
function copyRows(tensor: Tensor, limit: number): Tensor {
  const { rows, cols, dtype } = tensor;
  if (rows <= limit) return new Tensor([rows, cols], dtype, tensor.data.slice() as TensorData);
  const blocks = limit / BLOCK;
  const data = tensor.data.slice(0, limit * cols) as TensorData;
  for (let b = 0; b < blocks; b++) {
    const from = Math.floor(((Math.floor(rows / BLOCK) - 1) * b) / (blocks - 1)) * BLOCK;
    data.set(tensor.rowsView(from, from + BLOCK).data, b * BLOCK * cols);
  }
  return new Tensor([limit, cols], dtype, data);
}

function toWrite({ name, tensor }: { name: string; tensor: Tensor }): TensorToWrite {
  const { shape, data } = tensor;
  const dtype = STORED[tensor.dtype];
  if (!dtype) throw new Error(`${name} is ${tensor.dtype}, which captures do not hold`);
  return { name, dtype, shape, data: () => new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}
