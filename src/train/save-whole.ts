import type { Team } from '../expert/team.js';
import { writeCheckpoint } from '../model/checkpoint.js';
import { saveModel } from '../model/load.js';
import { listParameters } from '../model/parameters.js';
import { Tensor } from '../tensor/tensor.js';
import { recipeOf } from './config.js';
import type { Trainer } from './trainer.js';

/** First tag of messages with weights: channels have those below. */
const TAG = 1000;

/** Saves the trained model in Hugging Face layout; over ranks rank 0 writes, and gets experts of others one tensor at a time. */
export function saveWhole(folder: string, trainer: Trainer): void {
  const dtype = recipeOf(trainer.config).activations === 'fp32' ? 'f32' : 'bf16';
  const { model, team } = trainer;
  if (!team) {
    saveModel(folder, model, dtype);
    return;
  }
  if (!team.leads) {
    if (team.layout.first === 0) giveExperts(team, trainer);
    return;
  }
  const biases = new Map([...model.routers].map(([layer, { bias }]) => [biasName(layer), bias]));
  const tensorOf = (name: string): Tensor => {
    const value = biases.get(name) ?? model.parameters.get(name)!.value;
    return value.shape.length === 3 ? collectExperts(team, value) : value;
  };
  writeCheckpoint(folder, model.config, tensorOf, { dtype });
}

const biasName = (layer: number): string => `model.layers.${layer}.mlp.gate.e_score_correction_bias`;

/** Experts in the order of the checkpoint, one tensor after the other. */
function giveExperts(team: Team, { model }: Trainer): void {
  for (const { name, part } of listParameters(model.config)) {
    if (part !== 'routedExperts') continue;
    team.transport.send(model.parameters.get(name)!.value.data as Float32Array, 0, TAG).wait();
  }
}

/** own [E/ranks, N, K] and those of the first group's other ranks → [E, N, K]. */
function collectExperts(team: Team, own: Tensor): Tensor {
  const { size } = team.layout;
  const whole = new Float32Array(own.size * size);
  whole.set(own.data as Float32Array);
  for (let rank = 1; rank < size; rank++) {
    team.transport.receive(whole.subarray(rank * own.size, (rank + 1) * own.size), rank, TAG).wait();
  }
  return new Tensor([own.shape[0]! * size, ...own.shape.slice(1)], 'f32', whole);
}
