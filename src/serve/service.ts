import type { Admission } from './admission.js';
import { ApiError } from './errors.js';
import type { Metrics } from './metrics.js';
import type { ServedModel } from './model.js';

/** Bounds of what one request may take. */
export interface Limits {
  /** Longest body. */
  bodyBytes: number;
  /** A client may take so long to send the head of a request, and the whole of it. */
  headSeconds: number;
  receiveSeconds: number;
  /** From the arrival of a request to the end of its answer. */
  requestSeconds: number;
  /** A client that takes nothing of its stream for so long is given up. */
  stallSeconds: number;
}

/** What the endpoints work with. */
export class Service {
  constructor(
    readonly model: ServedModel,
    readonly metrics: Metrics,
    readonly admission: Admission,
    readonly limits: Limits,
  ) {}

  /** @throws ApiError 404 where a request names another model; without a name it means this one */
  checkModel(name: string | null | undefined): void {
    if (name === null || name === undefined || name === this.model.id) return;
    throw new ApiError(404, `The model '${name}' does not exist; this server has '${this.model.id}'.`, {
      param: 'model',
      code: 'model_not_found',
    });
  }
}
