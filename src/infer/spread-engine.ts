import type {
  Engine,
  EngineInfo,
  EngineStats,
  ExpertBalance,
  ExpertRows,
  GenerateEvent,
  GenerateRequest,
  WeightPaging,
} from './engine.js';
import { measuredImbalance } from './sharding.js';

/** An engine of one rank, and its requests under way. */
export interface RankEngine extends Engine {
  readonly open: number;
}

/** Requests by which a rank may be ahead of the idlest one and still get a conversation that it knows. Assumed. */
const SLACK = 1;
/** Prompts that are remembered of each rank. Assumed: more than run together on it. */
const REMEMBERED = 64;

/** The engines of all ranks as one: each request goes to the rank that has least to do, a conversation to where it was. */
export class SpreadEngine implements Engine {
  private readonly prompts: (readonly number[])[][];
  private next = 0;

  /**
   * @param ranks their engines, by rank
   * @param end is called when all have closed
   */
  constructor(
    readonly info: EngineInfo,
    private readonly ranks: readonly RankEngine[],
    private readonly end: () => Promise<void>,
    readonly died: Promise<Error>,
  ) {
    this.prompts = ranks.map(() => []);
  }

  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent> {
    return this.ranks[this.choose(request.prompt)]!.generate(request, signal);
  }

  async stats(): Promise<EngineStats> {
    const all = await Promise.all(this.ranks.map((rank) => rank.stats()));
    const rows = all.map(({ expertRows }) => expertRows!);
    const { expertRows: _, ...sums } = sumOf(all);
    return { ...sums, experts: balanceOf(rows) };
  }

  async paging(): Promise<WeightPaging> {
    return sumOf(await Promise.all(this.ranks.map((rank) => rank.paging())));
  }

  async close(): Promise<void> {
    await Promise.all(this.ranks.map((rank) => rank.close()));
    await this.end();
  }

  private choose(prompt: GenerateRequest['prompt']): number {
    const { ranks } = this;
    const least = Math.min(...ranks.map(({ open }) => open));
    const known = typeof prompt === 'string' ? undefined : this.rankOf(prompt, least + SLACK);
    const inTurn = ranks.map((_, i) => (this.next + i) % ranks.length);
    const chosen = known ?? inTurn.find((rank) => ranks[rank]!.open === least)!;
    if (known === undefined) this.next = (chosen + 1) % ranks.length;
    if (typeof prompt !== 'string')
      this.prompts[chosen] = [prompt, ...this.prompts[chosen]!].slice(0, REMEMBERED);
    return chosen;
  }

  /** The rank with no more than so many requests that has read most of this prompt, half of it at least. */
  private rankOf(prompt: readonly number[], most: number): number | undefined {
    const read = this.prompts.map((list, rank) =>
      this.ranks[rank]!.open > most ? 0 : Math.max(0, ...list.map((other) => common(other, prompt))),
    );
    const longest = Math.max(...read);
    return longest > 0 && 2 * longest >= prompt.length ? read.indexOf(longest) : undefined;
  }
}

/** Tokens that two prompts begin with alike. */
function common(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) if (a[i] !== b[i]) return i;
  return end;
}

/** Field by field, what is a number. */
function sumOf<T extends object>(all: readonly T[]): T {
  const fields = Object.keys(all[0]!) as (keyof T)[];
  const sum = (field: keyof T) => all.reduce((total, of) => total + (of[field] as number), 0);
  return Object.fromEntries(
    fields.map((field) => [field, typeof all[0]![field] === 'number' ? sum(field) : all[0]![field]]),
  ) as T;
}

const balanceOf = (ranks: readonly ExpertRows[]): ExpertBalance => ({
  imbalance: measuredImbalance(ranks.map(({ rows }) => rows)),
  placements: ranks[0]!.placements,
});
