import type { ServerResponse } from 'node:http';

/** The body of every failure, in OpenAI's shape. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

/** What else an error says about itself. */
export interface ErrorDetails {
  /** The field of the request that is wrong, as a path: `messages[1].role`. */
  param?: string;
  code?: string;
  /** Sent along, such as `Retry-After`. */
  headers?: Record<string, string>;
}

/** A failure that the client is told: HTTP status, message, and OpenAI's `type`, `param` and `code`. */
export class ApiError extends Error {
  override name = 'ApiError';

  constructor(
    readonly status: number,
    message: string,
    readonly details: ErrorDetails = {},
  ) {
    super(message);
  }

  get body(): ErrorBody {
    const { param = null, code = null } = this.details;
    return { error: { message: this.message, type: TYPES[this.status] ?? 'api_error', param, code } };
  }
}

/** OpenAI's error types by status; everything else is an `api_error`. */
const TYPES: Record<number, string> = {
  400: 'invalid_request_error',
  401: 'invalid_request_error',
  403: 'invalid_request_error',
  404: 'invalid_request_error',
  405: 'invalid_request_error',
  408: 'invalid_request_error',
  413: 'invalid_request_error',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  500: 'server_error',
  503: 'server_error',
  504: 'server_error',
};

/** A request that cannot be right: status 400. */
export const badRequest = (message: string, param?: string, code?: string): ApiError =>
  new ApiError(400, message, { ...(param ? { param } : {}), ...(code ? { code } : {}) });

/** Answers a request with JSON. */
export function sendJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}
