import { Worker } from 'node:worker_threads';
import { UserError } from '../errors.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { ResponseFormat } from './engine.js';
import type { GrammarReply, GrammarRequest, GrammarVocabulary } from './grammar-worker.js';
import type { TokenMask } from './sampler.js';

/** What a continuation must look like, followed token by token. */
export interface Constraint {
  /** Tokens allowed next, as of the last `refresh`. */
  readonly mask: TokenMask;
  /** Whether nothing may follow, as of the last `refresh`. */
  readonly complete: boolean;
  /** Takes a token that the mask allows. */
  accept(id: number): void;
  /** Brings `mask` and `complete` up to the accepted tokens. */
  refresh(): Promise<void>;
  /** Frees what the constraint holds. */
  dispose(): void;
}

/** Larger schemas are refused; OpenAI's limits (15,000 characters of names) end well below. Assumed. */
const MAX_SCHEMA_CHARACTERS = 65_536;
/** Schemas that take longer to compile are refused. Common ones take 0.1 s at a vocabulary of 129,280, measured here. */
const COMPILE_SECONDS = 10;

/**
 * JSON by grammar: XGrammar's WebAssembly build says which tokens may come next. It runs in a thread of its own, started with the first
 * request that needs it: compiling a schema never holds up the batch, and a schema that the library gives up on takes
 * nothing else with it.
 */
export class Grammars {
  private worker: GrammarThread | undefined;

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly vocabulary: number,
    private readonly endTokens: ReadonlySet<number>,
  ) {}

  /**
   * A new constraint; undefined where the format asks for none.
   * @throws UserError where a schema cannot be used
   */
  async constraint(format: ResponseFormat | undefined): Promise<Constraint | undefined> {
    if (!format || format.type === 'text') return undefined;
    const schema = format.type === 'json_schema' ? schemaText(format.schema) : undefined;
    if (!this.worker || this.worker.spent) this.worker = new GrammarThread(this.describe());
    return this.worker.start(schema);
  }

  async close(): Promise<void> {
    await this.worker?.end();
  }

  private describe(): GrammarVocabulary {
    const { tokenizer, vocabulary, endTokens } = this;
    const spelling = (id: number) => (tokenizer.isSpecial(id) ? '' : (tokenizer.idToToken(id) ?? ''));
    return {
      tokens: Array.from({ length: vocabulary }, (_, id) => spelling(id)),
      type: tokenizer.isByteLevel ? 'byte_level' : 'byte_fallback',
      endTokens: [...endTokens],
    };
  }
}

function schemaText(schema: unknown): string {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) {
    throw new UserError('responseFormat: schema must be a JSON schema, an object');
  }
  const text = JSON.stringify(schema);
  if (text.length <= MAX_SCHEMA_CHARACTERS) return text;
  throw new UserError(
    `responseFormat: the schema has ${text.length} characters; ${MAX_SCHEMA_CHARACTERS} are the limit`,
  );
}

/** The thread, and what is under way in it. */
class GrammarThread {
  /** Whether new constraints need another thread. */
  spent = false;
  private readonly thread: Worker;
  private readonly waiting = new Map<
    number,
    { resolve(reply: GrammarReply): void; reject(error: Error): void }
  >();
  private requests = 0;
  private constraints = 0;

  constructor(vocabulary: GrammarVocabulary) {
    this.thread = new Worker(new URL('./grammar-worker.js', import.meta.url), { workerData: vocabulary });
    this.thread.unref();
    this.thread.on('message', (reply: GrammarReply) => this.take(reply));
    this.thread.on('error', (error) => this.fail(error));
    this.thread.on('exit', () => this.fail(new Error('the grammar thread has ended')));
  }

  async start(schema: string | undefined): Promise<Constraint> {
    this.constraints++;
    const timer = setTimeout(() => this.giveUp(), COMPILE_SECONDS * 1000);
    try {
      const reply = await this.ask({ type: 'start', schema });
      return new GrammarConstraint(this, reply);
    } catch (error) {
      this.left();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a request and waits for its reply. */
  ask(request: GrammarRequest): Promise<GrammarReply> {
    const id = this.requests++;
    const reply = new Promise<GrammarReply>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.thread.ref();
    this.thread.postMessage({ ...request, id });
    return reply;
  }

  /** A constraint is done. */
  release(constraint: number): void {
    this.thread.postMessage({ type: 'dispose', constraint });
    this.left();
  }

  async end(): Promise<void> {
    await this.thread.terminate();
  }

  private left(): void {
    this.constraints--;
    if (this.spent && this.constraints === 0) void this.end();
  }

  private take(reply: GrammarReply): void {
    const asked = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if (this.waiting.size === 0) this.thread.unref();
    if (reply.problem === undefined) asked?.resolve(reply);
    else {
      // The library ends by abort(), after which it is not to be trusted with anything new.
      this.spent = true;
      asked?.reject(new UserError(`responseFormat: the schema cannot be used: ${reply.problem}`));
    }
  }

  private giveUp(): void {
    this.fail(
      new UserError(
        `responseFormat: the schema takes more than ${COMPILE_SECONDS} s to compile; simplify it`,
      ),
    );
    void this.end();
  }

  private fail(error: Error): void {
    this.spent = true;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

class GrammarConstraint implements Constraint {
  mask: TokenMask;
  complete: boolean;
  private accepted: number[] = [];
  private disposed = false;

  constructor(
    private readonly thread: GrammarThread,
    private readonly reply: GrammarReply,
  ) {
    this.mask = reply.mask!;
    this.complete = reply.complete!;
  }

  accept(id: number): void {
    this.accepted.push(id);
  }

  async refresh(): Promise<void> {
    if (this.accepted.length === 0 || this.disposed) return;
    const tokens = this.accepted;
    this.accepted = [];
    const { constraint } = this.reply;
    const reply = await this.thread.ask({ type: 'accept', constraint: constraint!, tokens });
    this.mask = reply.mask!;
    this.complete = reply.complete!;
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.thread.release(this.reply.constraint!);
  }
}
