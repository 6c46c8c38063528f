import type { Tensor } from '../tensor/tensor.js';
import type { Channel } from './channel.js';
import {
  awaitPartials,
  collectGradients,
  expectReturns,
  reservePartials,
  sendReturns,
  sumResults,
  writePartials,
} from './combine.js';
import { awaitArrivals, dispatch, readArrivals, readRows } from './dispatch.js';
import type { Message } from './inbox.js';
import { type Contributions, findPartials, planReceiving, type ReceivePlan, type SendPlan } from './plan.js';
import type { Pending } from './transport/transport.js';

/**
 * One batch of tokens on its way to the experts and back, and, in training, its gradients on the same ways. A start sends and
 * an end waits, so that something else may be computed between them:
 *
 *     sendTokens … awaitRows, receiveRows, then sendResults … receiveResults,
 *
 * and once more for the gradients, which need no choices. Legend: T tokens of this rank, K choices, D values, R rows of this
 * rank's experts.
 */
export class Trip {
  /** What this rank's experts get; known once rows have arrived. */
  plan!: ReceivePlan;
  /** By node of the source: partial sums for the rows in this rank's inboxes. */
  private contributions: Contributions[] | undefined;
  private hasChoices = true;
  private receives: Pending[] = [];
  private sends: Pending[] = [];
  private messages: Message[] = [];

  constructor(
    private readonly channel: Channel,
    readonly sent: SendPlan,
  ) {}

  /** x [T, D], f32 or bf16: one copy to every node that has one of its experts. */
  sendTokens(x: Tensor): void {
    const { channel, sent } = this;
    channel.traffic.timed('seconds', () => {
      this.hasChoices = this.contributions === undefined;
      const { receives, sends } = dispatch(channel, sent, x, this.hasChoices);
      this.receives = receives;
      this.sends = sends;
    });
  }

  /** Waits for all rows. @returns their number R @throws UserError for a damaged message or a lost rank */
  awaitRows(): number {
    const { channel } = this;
    return channel.traffic.timed('seconds', () => {
      awaitArrivals(channel, this.receives, this.hasChoices);
      this.contributions ??= this.makePlan();
      return this.plan.source.length;
    });
  }

  /** Rows of this rank's experts, by expert, source and token → out [R, D]. */
  receiveRows(out: Tensor): void {
    const { channel } = this;
    channel.traffic.timed('seconds', () => {
      readRows(channel, this.plan, this.hasChoices, out);
      this.finishSends();
    });
  }

  /**
   * rows [R, D] of this rank's experts on their way home: summed within the node, then to where they came from.
   * @param weighted whether rows are multiplied with their weights first
   * @param gradients f32 [R] of the weights, which go along
   */
  sendResults(rows: Tensor, weighted: boolean, gradients?: Float32Array): void {
    const { channel, plan, sent } = this;
    const withGradients = gradients !== undefined;
    channel.traffic.timed('seconds', () => {
      const expected = expectReturns(channel, sent, withGradients);
      this.messages = expected.messages;
      this.receives = expected.receives;
      writePartials(channel, plan, rows, weighted, gradients);
      this.sends = sendReturns(channel, plan, this.contributions!, withGradients);
    });
  }

  /** Results of all experts of each token, summed → y [T, D]; gradients of the weights, where they came, → f32 [T, K]. */
  receiveResults(y: Tensor, gradients?: Float32Array): void {
    const { channel, sent, messages } = this;
    channel.traffic.timed('seconds', () => {
      channel.traffic.timed('waitSeconds', () => {
        for (const pending of this.receives) pending.wait();
      });
      awaitPartials(channel);
      const own = this.contributions![channel.layout.node]!;
      sumResults(channel, sent, own, messages, y);
      if (gradients) collectGradients(channel, this.plan, sent, own, messages, gradients);
      this.finishSends();
    });
  }

  private finishSends(): void {
    this.channel.traffic.timed('waitSeconds', () => {
      for (const pending of this.sends) pending.wait();
    });
  }

  private makePlan(): Contributions[] {
    const { channel } = this;
    const { layout, shape } = channel;
    const arrivals = readArrivals(channel);
    this.plan = planReceiving(layout, shape.topK, arrivals);
    reservePartials(channel, this.plan);
    return Array.from({ length: layout.nodes }, (_, node) => {
      const source = node * layout.perNode + layout.local;
      return findPartials(layout, shape.topK, arrivals[source]!, source, this.plan.firsts);
    });
  }
}
