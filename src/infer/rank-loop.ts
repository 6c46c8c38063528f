import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { deserialize, serialize } from 'node:v8';
import type { Team } from '../expert/team.js';
import type { FromEngine, ToEngine } from './engine-messages.js';
import type { LocalEngine } from './local-engine.js';
import type { LockstepRunner } from './lockstep.js';

/** A message of an engine's protocol on its way to a rank. */
interface Parcel {
  to: number;
  message: ToEngine | FromEngine;
}

/** What a rank says at the beginning of a round: it has sequences, it will still answer something, or it ends all. */
const [SEQUENCES, BUSY, END] = [1, 2, 4];

/** Between rounds that have nothing to do but to fetch an answer. */
const BUSY_MS = 1;

/**
 * The rounds that the engines of all ranks take together. A round begins with a small collective: what each rank has to do,
 * and messages between rank 0 and the others; then all make one step, if there is anything to do on any of them. When there is
 * not, rank 0 waits for a request and the others, asleep, for rank 0.
 */
export class RankLoop {
  private outgoing: Parcel[] = [];
  private ending = false;
  private wake: () => void = () => {};
  private idle: (() => void)[] = [];
  /** Messages that are not dealt with yet. */
  private open = 0;

  /** @param take deals with a message for this rank; what it answers is sent by the time it is done */
  constructor(
    private readonly team: Team,
    private readonly take: (message: ToEngine | FromEngine, from: number) => Promise<void> | undefined,
  ) {}

  /** Sends with the next round. */
  post(to: number, message: ToEngine | FromEngine): void {
    this.outgoing.push({ to, message });
    this.wake();
  }

  /** Lets rank 0 begin rounds, where it waits. @returns when this rank's sequences have ended */
  untilIdle(): Promise<void> {
    this.wake();
    return new Promise((resolve) => this.idle.push(resolve));
  }

  /** Ends the rounds of all ranks; of rank 0. */
  end(): void {
    this.ending = true;
    this.wake();
  }

  /** Takes part in all rounds. @throws what ends all ranks */
  async run(engine: LocalEngine, runner: LockstepRunner): Promise<void> {
    let quiet = true;
    for (;;) {
      // Requests of this turn join the step, and readers get the events of the one before.
      await nextTurn();
      if (engine.core.idle) for (const resolve of this.idle.splice(0)) resolve();
      if (quiet && this.team.leads) await this.news(engine);
      const { flags, any } = this.exchange(this.flagsOf(engine));
      if (flags & END) return;
      if (flags & SEQUENCES) {
        await engine.core.prepare();
        runner.round(() => engine.step());
      }
      quiet = flags === 0 && !any;
      // Whoever prepares an answer does so outside rounds.
      if (flags === BUSY && !any && this.team.leads) await delay(BUSY_MS);
    }
  }

  private flagsOf(engine: LocalEngine): number {
    if (this.ending) return END;
    return (engine.core.idle ? 0 : SEQUENCES) | (this.open > 0 ? BUSY : 0);
  }

  private async news(engine: LocalEngine): Promise<void> {
    while (this.outgoing.length === 0 && engine.core.idle && !this.ending) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  /** All ranks' flags together, and whether messages were exchanged. */
  private exchange(own: number): { flags: number; any: boolean } {
    const { team } = this;
    const parcels = serialize(this.outgoing.splice(0));
    const empty = parcels.length === EMPTY_BYTES;
    const heads = team.gather(new Uint8Array(Int32Array.of(own, parcels.length, empty ? 0 : 1).buffer));
    const read = heads.map((bytes) => new Int32Array(bytes.slice().buffer));
    const flags = read.reduce((all, [flag]) => all | flag!, 0);
    const any = read.some(([, , full]) => full === 1);
    if (any)
      this.deliver(
        parcels,
        read.map(([, length]) => length!),
      );
    return { flags, any };
  }

  private deliver(parcels: Uint8Array, lengths: readonly number[]): void {
    const { team } = this;
    const all = new Uint8Array(lengths.reduce((a, b) => a + b, 0));
    team.world.allGather(parcels, all, lengths).wait();
    let at = 0;
    lengths.forEach((length, from) => {
      const list = deserialize(all.subarray(at, at + length)) as Parcel[];
      for (const { to, message } of list) if (to === team.rank) void this.takeIn(message, from);
      at += length;
    });
  }

  private async takeIn(message: ToEngine | FromEngine, from: number): Promise<void> {
    this.open++;
    await this.take(message, from);
    this.open--;
  }
}

/** Of no parcels. */
const EMPTY_BYTES = serialize([]).length;
