import type { Backend } from './backend.js';
import type { Observer } from './observer.js';
import type { Pool } from './pool.js';
import { type Steps, toEnd } from './steps.js';
import type { DType, Tensor } from './tensor.js';

/** One recorded operation. */
export interface TapeNode {
  /** For messages: which op of which parameter. */
  name: string;
  outputs: Tensor[];
  /** Tensors that `backward` reads; kept until it has run. */
  saved: Tensor[];
  /** Reads the gradients of `outputs`, adds to those of the inputs. */
  backward: () => void;
  /** Whether `backward` begins by waiting for messages. */
  waits?: boolean;
}

/** How to fill a tensor again that was dropped between forward and backward. */
interface Recipe {
  needs: Tensor[];
  forward: () => void;
}

/**
 * Reverse-mode differentiation. Operations record how to go back; `backward` runs the records in reverse.
 *
 * Memory follows from three rules:
 * - a tensor allocated inside `scope` is released when the scope ends, unless it is returned or saved;
 * - what a record saves is released after its backward has run, and so are the gradients of its outputs;
 * - a tensor marked `recomputable` is not kept when saved: backward computes it again when it needs it.
 */
export class Tape {
  private readonly nodes: TapeNode[] = [];
  private readonly scopes: Tensor[][] = [[]];
  private readonly recomputable = new Map<Tensor, Recipe>();
  /** Tensors that were computed again, by their memory being back; released with their producer. */
  private readonly revived = new Set<Tensor>();

  constructor(
    readonly backend: Backend,
    private readonly pool: Pool,
    /** False for inference: nothing is recorded or kept. */
    readonly recording: boolean,
    readonly observer: Observer = {},
  ) {}

  /** An uninitialised tensor that lives to the end of the current scope. */
  alloc(shape: readonly number[], dtype: DType): Tensor {
    const tensor = this.pool.take(shape, dtype);
    this.scopes[this.scopes.length - 1]!.push(tensor);
    return tensor;
  }

  /** Runs `fn` and releases what it allocated, except the tensor that it returns. */
  scope<T extends Tensor | undefined>(fn: () => T): T {
    this.scopes.push([]);
    let result: T | undefined;
    try {
      result = fn();
      return result;
    } finally {
      this.closeScope(result);
    }
  }

  /** The same for a computation that may pause. */
  *scopeSteps<T extends Tensor | undefined>(steps: Steps<T>): Steps<T> {
    this.scopes.push([]);
    let result: T | undefined;
    try {
      result = yield* steps;
      return result;
    } finally {
      this.closeScope(result);
    }
  }

  /** Runs `fn`, releases all that it allocated, and returns its result, which holds no tensor. */
  scopeValue<T>(fn: () => T): T {
    let value: T;
    this.scope(() => {
      value = fn();
      return undefined;
    });
    return value!;
  }

  record(node: TapeNode): void {
    if (!this.recording) return;
    for (const tensor of node.saved) if (!this.recomputable.has(tensor)) this.pool.retain(tensor);
    this.nodes.push(node);
  }

  /**
   * Lets `output` be dropped after the forward pass. `forward` fills it again from `needs`.
   * An operation that later changes it in place adds its step with `alsoInPlace`.
   */
  dropAndRecompute(output: Tensor, needs: Tensor[], forward: () => void): void {
    if (!this.recording) return;
    for (const tensor of needs) if (!this.recomputable.has(tensor)) this.pool.retain(tensor);
    this.recomputable.set(output, { needs, forward });
  }

  /** Appends an in-place step to the way in which `tensor` is computed again, if it is. */
  alsoInPlace(tensor: Tensor, step: () => void): void {
    const recipe = this.recomputable.get(tensor);
    if (!recipe) return;
    const first = recipe.forward;
    recipe.forward = () => {
      first();
      step();
    };
  }

  /** Whether `tensor` is dropped after the forward pass. */
  isDropped(tensor: Tensor): boolean {
    return this.recomputable.has(tensor);
  }

  /** Adds `gradient` to the gradient of `tensor`; the tape keeps it as long as needed. */
  addGrad(tensor: Tensor, gradient: Tensor): void {
    if (!tensor.grad) {
      this.pool.retain(gradient);
      tensor.grad = gradient;
      return;
    }
    const sum = this.exclusiveGrad(tensor);
    this.backend.add(sum, gradient, sum);
  }

  /**
   * Lets `write` add to the gradient of `tensor` directly: `accumulate` says whether to add or to overwrite.
   */
  addGradInto(tensor: Tensor, write: (gradient: Tensor, accumulate: boolean) => void): void {
    if (tensor.grad) {
      write(this.exclusiveGrad(tensor), true);
      return;
    }
    const gradient = this.pool.take(tensor.shape, tensor.dtype);
    write(gradient, false);
    tensor.grad = gradient;
  }

  /** The gradient of `tensor` for an in-place change: nothing else sees it. */
  ownGrad(tensor: Tensor): Tensor {
    return this.exclusiveGrad(tensor);
  }

  /** Runs all records in reverse and empties the tape. */
  backward(): void {
    toEnd(this.backwardSteps());
  }

  /** The same, with a pause before each record that waits for messages. */
  *backwardSteps(): Steps<void> {
    for (let node = this.nodes.pop(); node; node = this.nodes.pop()) {
      if (node.waits) yield;
      this.runBackward(node);
    }
    this.clear();
  }

  /** Forgets all records, releasing what they hold; used when a step is given up. */
  clear(): void {
    for (const node of this.nodes.splice(0)) this.releaseNode(node);
    for (const recipe of this.recomputable.values()) this.releaseKept(recipe.needs);
    this.recomputable.clear();
    for (const tensor of this.scopes[0]!.splice(0)) this.pool.release(tensor);
  }

  private closeScope(result: Tensor | undefined): void {
    for (const tensor of this.scopes.pop()!) {
      if (tensor.data.buffer === result?.data.buffer) this.scopes[this.scopes.length - 1]!.push(tensor);
      else this.pool.release(tensor);
    }
  }

  private runBackward(node: TapeNode): void {
    // A record without any output gradient did not contribute to the loss.
    if (node.outputs.length === 0 || node.outputs.some((t) => t.grad)) {
      for (const tensor of node.saved) this.revive(tensor);
      this.scope(() => {
        node.backward();
        return undefined;
      });
    }
    this.releaseNode(node);
  }

  private releaseNode(node: TapeNode): void {
    this.releaseKept(node.saved);
    for (const tensor of node.outputs) {
      if (tensor.grad) this.pool.release(tensor.grad);
      tensor.grad = undefined;
      this.forget(tensor);
    }
  }

  private releaseKept(tensors: Tensor[]): void {
    for (const tensor of tensors) if (!this.recomputable.has(tensor)) this.pool.release(tensor);
  }

  /** Ends the life of a recomputable tensor: no record before its producer can need it. */
  private forget(tensor: Tensor): void {
    const recipe = this.recomputable.get(tensor);
    if (!recipe) return;
    this.recomputable.delete(tensor);
    this.releaseKept(recipe.needs);
    if (this.revived.delete(tensor)) this.pool.release(tensor);
  }

  private revive(tensor: Tensor): void {
    const recipe = this.recomputable.get(tensor);
    if (!recipe || this.revived.has(tensor)) return;
    for (const need of recipe.needs) this.revive(need);
    tensor.data = this.pool.take(tensor.shape, tensor.dtype).data;
    this.revived.add(tensor);
    recipe.forward();
  }

  /** The gradient of `tensor` in memory that nothing else holds. */
  private exclusiveGrad(tensor: Tensor): Tensor {
    const shared = tensor.grad!;
    if (this.pool.holdersOf(shared) === 1) return shared;
    const own = this.pool.take(tensor.shape, tensor.dtype);
    this.backend.cast(shared, own);
    this.pool.release(shared);
    tensor.grad = own;
    return own;
  }
}
