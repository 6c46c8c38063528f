import type { ExpertExchange, ExpertJourney } from '../model/exchange.js';
import type { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import type { Channel } from './channel.js';
import { planSending } from './plan.js';
import { Trip } from './trip.js';

/**
 * Routed experts on other ranks, differentiable. In backward the same trip is made twice: gradients of results go to the
 * experts as tokens did, gradients of tokens come back as results did, and those of the router's weights with them.
 */
export function exchangeOver(channel: Channel): ExpertExchange {
  return {
    send: (tape, u, ids, weights) => {
      const { layout, shape } = channel;
      const choices = [ids.data as Int32Array, weights.data as Float32Array] as const;
      const trip = new Trip(channel, planSending(layout, shape.topK, ...choices));
      trip.sendTokens(u);
      tape.record({
        name: 'dispatch',
        outputs: [],
        saved: [],
        waits: true,
        backward: () => {
          const dx = tape.alloc(u.shape, u.dtype);
          const dweights = tape.alloc(weights.shape, 'f32');
          trip.receiveResults(dx, dweights.data as Float32Array);
          tape.addGrad(u, dx);
          tape.addGrad(weights, dweights);
        },
      });
      return new Journey(tape, trip, u);
    },
  };
}

class Journey implements ExpertJourney {
  private rows!: Tensor;
  /** f32 [R]: gradient of each row's weight, between two records of backward. */
  private dweights!: Float32Array;

  constructor(
    private readonly tape: Tape,
    private readonly trip: Trip,
    /** [T, D]. */
    private readonly u: Tensor,
  ) {}

  receive(): { rows: Tensor; offsets: Tensor } {
    const { tape, trip, u } = this;
    const rows = tape.alloc([trip.awaitRows(), u.cols], u.dtype);
    trip.receiveRows(rows);
    this.rows = rows;
    tape.record({
      name: 'arrival',
      outputs: [rows],
      saved: [],
      backward: () => trip.sendResults(rows.grad!, false, this.dweights),
    });
    return { rows, offsets: Tensor.i32(trip.plan.offsets) };
  }

  sendBack(out: Tensor): void {
    const { tape, trip } = this;
    trip.sendResults(out, true);
    tape.record({
      name: 'results',
      outputs: [],
      saved: [out],
      waits: true,
      backward: () => this.receiveGradients(out),
    });
  }

  receiveBack(): Tensor {
    const { tape, trip, u } = this;
    const y = tape.alloc(u.shape, u.dtype);
    trip.receiveResults(y);
    tape.record({ name: 'combine', outputs: [y], saved: [], backward: () => trip.sendTokens(y.grad!) });
    return y;
  }

  /** dy of each row's token → gradients of the experts' results out [R, D] and of the rows' weights. */
  private receiveGradients(out: Tensor): void {
    const { tape, trip, rows } = this;
    const count = trip.awaitRows();
    const dy = tape.alloc(rows.shape, rows.dtype);
    trip.receiveRows(dy);
    const dout = tape.alloc(rows.shape, rows.dtype);
    const dweights = Tensor.zeros([count, 1], 'f32');
    const inPlace = Tensor.i32(new Int32Array(count).map((_, r) => r)).reshape([count, 1]);
    const weights = new Tensor([count, 1], 'f32', trip.plan.weights);
    tape.backend.unpermuteBackward(dy, out, inPlace, weights, dout, dweights);
    this.dweights = dweights.data as Float32Array;
    tape.addGrad(out, dout);
  }
}
