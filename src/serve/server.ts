import {
  createServer,
  type ServerOptions as HttpSettings,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { UserError } from '../errors.js';
import { fileError } from '../files.js';
import { QueueFullError } from '../infer/engine.js';
import { Access, type AccessOptions, isLoopback } from './access.js';
import { Admission } from './admission.js';
import { ApiError } from './errors.js';
import { ClientGone, Exchange } from './exchange.js';
import { Metrics } from './metrics.js';
import type { ServedModel } from './model.js';
import { findRoute, type Route } from './routes.js';
import { type Limits, Service } from './service.js';

export interface ServerOptions extends AccessOptions {
  /** 0 takes any free port. */
  port: number;
  /** Sequences that run together, and those that wait beyond them. */
  maxBatch: number;
  maxQueue: number;
  limits?: Partial<Limits>;
  /** Told of failures that are the server's own fault. */
  onFailure?: (error: unknown) => void;
}

const LIMITS: Limits = {
  bodyBytes: 4 << 20,
  headSeconds: 10,
  receiveSeconds: 60,
  requestSeconds: 600,
  stallSeconds: 30,
};
/** More are closed as they come. Assumed: far more than one machine's model can serve, far fewer than file descriptors. */
const MAX_CONNECTIONS = 4096;
/** Longer than proxies keep idle connections (60 s as a rule), so that they end them and not this side in mid-request. */
const KEEP_ALIVE_TIMEOUT = 65_000;
const MAX_HEADER_BYTES = 16 << 10;
/** Status in the metrics of a request whose client went away (nginx). */
const GONE = 499;

/** An OpenAI-compatible HTTP server over one engine. */
export class ApiServer {
  private readonly http: Server;
  private readonly access: Access;
  private readonly service: Service;
  /** Requests at work. */
  private readonly open = new Set<Promise<void>>();
  private draining = false;
  private answered = 0;

  constructor(
    model: ServedModel,
    private readonly options: ServerOptions,
  ) {
    this.access = new Access(options);
    this.service = new Service(
      model,
      new Metrics(model.engine),
      new Admission(options.maxBatch + options.maxQueue, options.maxBatch),
      { ...LIMITS, ...options.limits },
    );
    this.http = createServer(httpSettings(this.service.limits), (request, response) =>
      this.accept(request, response),
    );
    this.http.maxConnections = MAX_CONNECTIONS;
  }

  /**
   * Starts to listen.
   * @returns the address as a URL
   * @throws UserError where the address is taken or not of this machine
   */
  async listen(): Promise<string> {
    const { host, port } = this.options;
    await new Promise<void>((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException) => reject(listenError(error, host, port));
      this.http.once('error', failed);
      this.http.listen(port, host, () => {
        this.http.off('error', failed);
        resolve();
      });
    });
    const address = this.http.address() as AddressInfo;
    return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`;
  }

  /** Requests answered so far. */
  get requests(): number {
    return this.answered;
  }

  /** Takes no more requests, ends when those at work are done. The engine stays open. */
  async drain(): Promise<void> {
    this.draining = true;
    const closed = new Promise((resolve) => this.http.close(resolve));
    while (this.open.size > 0) await Promise.all(this.open);
    this.http.closeAllConnections();
    await closed;
  }

  private accept(request: IncomingMessage, response: ServerResponse): void {
    const work = this.handle(new Exchange(request, response));
    this.open.add(work);
    work.finally(() => this.open.delete(work));
  }

  /** Never rejects: whatever goes wrong becomes an answer. */
  private async handle(exchange: Exchange): Promise<void> {
    const { request, response } = exchange;
    const pathname = pathOf(request);
    const found = findRoute(request.method ?? '', pathname);
    let status: number | undefined;
    try {
      exchange.limitTime(this.service.limits.requestSeconds);
      this.prepare(exchange);
      if (found instanceof ApiError) throw found;
      await this.enter(exchange, found, pathname);
    } catch (error) {
      status = error instanceof ClientGone ? GONE : this.fail(exchange, error);
    }
    exchange.abort(new ClientGone());
    await exchange.flushed(this.service.limits.stallSeconds);
    this.answered++;
    const endpoint = found instanceof ApiError ? 'other' : found.path;
    const seconds = performance.now() / 1000 - exchange.startedSeconds;
    this.service.metrics.answered(endpoint, status ?? response.statusCode, seconds);
  }

  private prepare({ request, response }: Exchange): void {
    // An idle connection would keep a server that drains waiting.
    if (this.draining) response.setHeader('connection', 'close');
    for (const [name, value] of Object.entries(this.access.corsHeaders(request)))
      response.setHeader(name, value);
    this.access.checkHost(request);
  }

  private async enter(exchange: Exchange, route: Route, pathname: string): Promise<void> {
    if (route.secret) this.access.checkKey(exchange.request);
    if (this.draining && !route.whileDraining)
      throw new ApiError(503, 'The server is shutting down.', { headers: { 'retry-after': '5' } });
    await route.handle({ service: this.service, exchange, pathname, draining: this.draining });
  }

  /** @returns the status that the client sees */
  private fail(exchange: Exchange, error: unknown): number {
    const told = this.explain(error);
    exchange.fail(told);
    return told.status;
  }

  private explain(error: unknown): ApiError {
    if (error instanceof ApiError) return error;
    if (error instanceof QueueFullError) return this.service.admission.full();
    if (error instanceof UserError) return new ApiError(400, error.message);
    this.options.onFailure?.(error);
    return new ApiError(500, 'The server had an error while processing the request.');
  }
}

/** Times in milliseconds; connections that exceed them are looked for at intervals. */
const httpSettings = ({ headSeconds, receiveSeconds }: Limits): HttpSettings => ({
  maxHeaderSize: MAX_HEADER_BYTES,
  headersTimeout: headSeconds * 1000,
  requestTimeout: receiveSeconds * 1000,
  connectionsCheckingInterval: headSeconds * 100,
  keepAliveTimeout: KEEP_ALIVE_TIMEOUT,
});

/** The path alone; whatever the client wrote, it is a path. */
const pathOf = ({ url = '/' }: IncomingMessage): string => url.split(/[?#]/)[0]!;

function listenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  if (error.code === 'EADDRINUSE')
    return new UserError(`port ${port} of ${host} is taken; choose another with --port, or 0 for any`);
  return fileError('listen on', `${host}:${port}`, error) as Error;
}

/** @throws UserError where everybody could use the model: beyond this machine, without a key */
export function checkExposure(host: string, apiKey: string | undefined, allowPublic: boolean): void {
  if (isLoopback(host) || apiKey || allowPublic) return;
  throw new UserError(
    `--host ${host} is open to other machines; set --api-key (or FATHOM_API_KEY), or --allow-public to serve anyone`,
  );
}
