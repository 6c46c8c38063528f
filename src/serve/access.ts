import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { ApiError } from './errors.js';

/** Who may ask. */
export interface AccessOptions {
  /** Asked for as `Authorization: Bearer KEY`. */
  apiKey?: string;
  /** The address that is listened on. */
  host: string;
  /** Origins of web pages that may use the server from a browser (`*`: all); none where absent. */
  corsOrigin?: string;
}

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]', '::1']);

/** Whether only this machine can reach the address. */
export const isLoopback = (host: string): boolean => LOOPBACK.has(host) || /^127(\.\d{1,3}){3}$/.test(host);

export class Access {
  private readonly expected: Buffer | undefined;

  constructor(private readonly options: AccessOptions) {
    this.expected = options.apiKey === undefined ? undefined : digest(`Bearer ${options.apiKey}`);
  }

  /**
   * Keeps web pages out that reach a server on this machine by a name of their own (DNS rebinding); a key does that as well.
   * @throws ApiError 403
   */
  checkHost({ headers: { host } }: IncomingMessage): void {
    if (this.expected || !isLoopback(this.options.host)) return;
    const name = host?.replace(/:\d+$/, '').toLowerCase();
    if (name !== undefined && isLoopback(name)) return;
    throw new ApiError(403, `The server answers as localhost or 127.0.0.1 only, not as ${host ?? 'nobody'}.`);
  }

  /** Digests are compared, so that the time tells neither length nor beginning of the key. @throws ApiError 401 */
  checkKey({ headers: { authorization } }: IncomingMessage): void {
    if (!this.expected || timingSafeEqual(digest(authorization ?? ''), this.expected)) return;
    const message = authorization
      ? 'Incorrect API key provided.'
      : "You didn't provide an API key. Send it as the header Authorization: Bearer KEY.";
    throw new ApiError(401, message, {
      code: 'invalid_api_key',
      headers: { 'www-authenticate': 'Bearer' },
    });
  }

  /** Headers that let pages of the allowed origin read the answer. */
  corsHeaders({ headers: { origin } }: IncomingMessage): Record<string, string> {
    const { corsOrigin } = this.options;
    if (corsOrigin === undefined || (corsOrigin !== '*' && corsOrigin !== origin)) return {};
    return {
      'access-control-allow-origin': corsOrigin,
      'access-control-allow-headers': 'authorization, content-type',
      'access-control-allow-methods': 'GET, POST',
      'access-control-expose-headers': 'retry-after, x-request-id',
      'access-control-max-age': '600',
      vary: 'origin',
    };
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
