import type { Team } from '../expert/team.js';
import type { Context } from '../model/context.js';
import { layerOf } from '../model/parameters.js';
import type { Batch, Transformer } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { Choice, Observer } from '../tensor/observer.js';
import type { Tensor } from '../tensor/tensor.js';

/** What a model is held to on text that it does not train on. T tokens of a batch. */
export interface Validation {
  /** Mean −log p of the next token, nats. */
  loss: number;
  /**
   * Per MTP depth k: share of the positions at which the most likely token of module k is also that of the main model
   * k tokens on, which is when greedy speculative decoding accepts the draft [TR §5.4.3]. Both see the text as it is, where
   * decoding sees what the model wrote.
   */
  mtpAcceptance: number[];
  /**
   * Distinct groups among the experts that a token is sent to, mean over tokens and layers of the main model: the
   * nodes that it reaches where a group of experts is a node [ISCA §4.3]. Undefined without experts.
   */
  nodesPerToken: number | undefined;
}

/** Means over batches; the sums are exact or in a fixed order. */
export class ValidationSums {
  private lossSum = 0;
  private batches = 0;
  private readonly accepted: number[] = [];
  private readonly drafted: number[] = [];
  private nodes = 0;
  private routedTokens = 0;

  /** @param team ranks that each see a part of every batch */
  constructor(
    private readonly model: Transformer,
    private readonly team?: Team,
  ) {}

  /** To be given to the tape of each batch. */
  readonly observer: Observer = {
    routed: (gate, choice) => {
      if (layerOf(gate.name) >= this.model.config.num_hidden_layers) return;
      this.nodes += nodesReached(this.model.config, choice);
      this.routedTokens += choice.slot.rows;
    },
  };

  /** Runs one batch forward. */
  add(ctx: Context, batch: Batch): void {
    const { model } = this;
    let hidden = model.forward(ctx, batch.inputs); // [T, D]
    const losses = model.mainLosses(ctx, hidden, batch.targets);
    const own = sumOf(losses, batch.targets);
    const [sum, count] = this.total(own.sum, own.count) as unknown as [number, number];
    this.lossSum += sum / count;
    this.batches++;
    if (model.mtpDepth === 0) return;
    const main = model.mostLikely(ctx, hidden); // [T]
    for (let k = 1; k <= model.mtpDepth; k++) {
      hidden = model.mtpModule(ctx, k, hidden, batch.mtpInputs[k - 1]!);
      this.judge(k, model.mostLikely(ctx, hidden), main, batch.mtpTargets[k - 1]!);
    }
  }

  means(): Validation {
    const [nodes, tokens] = this.total(this.nodes, this.routedTokens) as unknown as [number, number];
    return {
      loss: this.lossSum / this.batches,
      mtpAcceptance: this.drafted.map((count, k) => {
        const [drafted, accepted] = this.total(count, this.accepted[k]!) as unknown as [number, number];
        return accepted / Math.max(drafted, 1);
      }),
      nodesPerToken: tokens > 0 ? nodes / tokens : undefined,
    };
  }

  /** Sums over all processes. */
  private total(...values: number[]): Float64Array {
    const sums = Float64Array.from(values);
    return this.team ? this.team.sum(sums) : sums;
  }

  /** Row i of module k drafts the token that row i + k of the main model predicts. */
  private judge(k: number, draft: Int32Array, main: Int32Array, targets: Tensor): void {
    const valid = (_: number, i: number) => targets.data[i]! >= 0;
    this.drafted[k - 1] = (this.drafted[k - 1] ?? 0) + draft.filter(valid).length;
    const agree = draft.filter((token, i) => valid(token, i) && token === main[i + k]).length;
    this.accepted[k - 1] = (this.accepted[k - 1] ?? 0) + agree;
  }
}

/** Σ over tokens of the distinct groups of their experts. */
export function nodesReached(config: ModelConfig, choice: Choice): number {
  const perGroup = config.n_routed_experts / config.n_group;
  const choices = chosenExperts(choice);
  const topK = choice.slot.cols;
  /** The last token that reached each group. */
  const reachedBy = new Int32Array(config.n_group).fill(-1);
  let sum = 0;
  for (let i = 0; i < choices.length; i++) {
    const [token, group] = [Math.floor(i / topK), Math.floor(choices[i]! / perGroup)];
    if (reachedBy[group] !== token) sum++;
    reachedBy[group] = token;
  }
  return sum;
}

/** Expert of each choice i32 [T, K], in the order of the gate's scores. */
export function chosenExperts({ offsets, slot }: Choice): Int32Array {
  const expertOfRow = new Int32Array(slot.size);
  for (let e = 0; e + 1 < offsets.size; e++) expertOfRow.fill(e, offsets.data[e], offsets.data[e + 1]);
  return Int32Array.from(slot.data, (row) => expertOfRow[row]!);
}

/** Sum of the losses f32 [T] and number of the tokens that have a target. */
export function sumOf(losses: Tensor, targets: Tensor): { sum: number; count: number } {
  let sum = 0;
  let count = 0;
  for (let i = 0; i < targets.size; i++) {
    if (targets.data[i]! < 0) continue;
    sum += losses.data[i]!;
    count++;
  }
  return { sum, count };
}
