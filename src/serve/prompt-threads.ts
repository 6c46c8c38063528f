import { Worker } from 'node:worker_threads';
import { UserError } from '../errors.js';
import type { ChatMessage } from '../text/chat-template.js';
import type { Prompts, TemplateVariables } from './prompts.js';

/** What a thread is asked: a method of `Prompts` and its arguments. */
export interface Question {
  id: number;
  method: 'text' | 'conversation' | 'decode';
  args: unknown[];
}

/** What a thread says: once that it is ready or why it cannot be, then an answer to every question, in order. */
export type Reply = { hasChatTemplate: boolean } | { error: string } | Answer;
type Answer = { id: number } & ({ value: unknown } | { error: string; user: boolean });

interface Waiting {
  question: Question;
  resolve: (value: never) => void;
  reject: (error: Error) => void;
}

/**
 * Longest time for one prompt, seconds. Assumed: four megabytes of English take half a second; what takes longer was made to
 * (a million line feeds take four).
 */
const LIMIT_SECONDS = 10;

/**
 * Reads prompts in a thread of its own, so that neither a long text nor a template without end keeps the server from
 * answering others. A thread that exceeds its time is replaced.
 */
export class ThreadedPrompts implements Prompts {
  private worker!: Worker;
  private template = false;
  private readonly waiting: Waiting[] = [];
  private timer: NodeJS.Timeout | undefined;
  private asked = 0;

  private constructor(
    private readonly folder: string,
    private readonly limitSeconds: number,
  ) {}

  /** Starts a thread with the tokenizer and chat template of a model folder. @throws UserError where they cannot be read */
  static async open(folder: string, limitSeconds = LIMIT_SECONDS): Promise<ThreadedPrompts> {
    const prompts = new ThreadedPrompts(folder, limitSeconds);
    await prompts.start();
    return prompts;
  }

  get hasChatTemplate(): boolean {
    return this.template;
  }

  text(text: string): Promise<number[]> {
    return this.ask('text', [text]);
  }

  conversation(messages: readonly ChatMessage[], variables: TemplateVariables): Promise<number[]> {
    return this.ask('conversation', [messages, variables]);
  }

  decode(ids: readonly number[]): Promise<string> {
    return this.ask('decode', [ids]);
  }

  async close(): Promise<void> {
    clearTimeout(this.timer);
    await this.worker.terminate();
  }

  private start(): Promise<void> {
    const worker = new Worker(new URL('./prompt-thread.js', import.meta.url), { workerData: this.folder });
    this.worker = worker;
    // A server that has nothing else to do may end.
    worker.unref();
    return new Promise((resolve, reject) => {
      worker.once('error', (error) => {
        reject(error);
        if (worker === this.worker) this.giveUp(error);
      });
      worker.on('message', (reply: Reply) => {
        // What a thread that was given up still says counts no more.
        if (worker !== this.worker) return;
        if ('id' in reply) return this.settle(reply);
        if ('error' in reply) return reject(new UserError(reply.error));
        this.template = reply.hasChatTemplate;
        resolve();
      });
    });
  }

  private ask<T>(method: Question['method'], args: unknown[]): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const question = { id: this.asked++, method, args };
      this.waiting.push({ question, resolve, reject });
      this.worker.postMessage(question);
      if (this.waiting.length === 1) this.watch();
    });
  }

  private settle(reply: Answer): void {
    const { resolve, reject } = this.waiting.shift()!;
    this.watch();
    if ('value' in reply) resolve(reply.value as never);
    else reject(reply.user ? new UserError(reply.error) : new Error(reply.error));
  }

  /** Gives the question that the thread is at now its time. */
  private watch(): void {
    clearTimeout(this.timer);
    if (this.waiting.length === 0) return;
    const message = `the prompt took longer to read than the ${this.limitSeconds} s that it may take`;
    this.timer = setTimeout(() => this.giveUp(new UserError(message)), this.limitSeconds * 1000).unref();
  }

  /** Ends the thread and the question that it could not answer; a new thread gets the others. */
  private giveUp(reason: Error): void {
    void this.worker.terminate();
    this.waiting.shift()?.reject(reason);
    if (this.waiting.length === 0 && !(reason instanceof UserError)) return;
    this.start().catch((error) => this.giveUp(error));
    for (const { question } of this.waiting) this.worker.postMessage(question);
    this.watch();
  }
}
