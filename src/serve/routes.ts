import { readJson } from './body.js';
import { chat } from './chat.js';
import { complete } from './completions.js';
import { ApiError, sendJson } from './errors.js';
import type { Exchange } from './exchange.js';
import { describeModel } from './model.js';
import { PAGE_PATHS, sendPage } from './page.js';
import type { Service } from './service.js';

export interface Call {
  service: Service;
  exchange: Exchange;
  pathname: string;
  draining: boolean;
}

export interface Route {
  method: 'GET' | 'POST' | 'OPTIONS';
  path: string;
  /** Whether it asks for the key, where there is one. */
  secret: boolean;
  /** Whether it answers while the server shuts down. */
  whileDraining?: boolean;
  handle(call: Call): void | Promise<void>;
}

const pages: Route[] = PAGE_PATHS.map((path) => ({
  method: 'GET',
  path,
  secret: false,
  handle: ({ exchange }) => sendPage(exchange.response, path),
}));

const endpoint = (
  path: string,
  handle: (service: Service, exchange: Exchange, body: object) => Promise<void>,
): Route => ({
  method: 'POST',
  path,
  secret: true,
  handle: async ({ service, exchange }) =>
    handle(service, exchange, await readJson(exchange.request, service.limits.bodyBytes)),
});

const ROUTES: readonly Route[] = [
  ...pages,
  endpoint('/v1/completions', complete),
  endpoint('/v1/chat/completions', chat),
  { method: 'GET', path: '/v1/models', secret: true, handle: listModels },
  { method: 'GET', path: '/v1/models/:model', secret: true, handle: showModel },
  { method: 'GET', path: '/metrics', secret: true, whileDraining: true, handle: sendMetrics },
  { method: 'GET', path: '/health', secret: false, whileDraining: true, handle: sendHealth },
];

/** A browser asks before a page of another origin may post; the allowed origin's headers are on every answer. */
const PREFLIGHT: Route = {
  method: 'OPTIONS',
  path: 'preflight',
  secret: false,
  whileDraining: true,
  handle: ({ exchange: { response } }) => {
    response.writeHead(204).end();
  },
};

/** When this server began to serve its model, seconds since 1970. */
const CREATED = Math.floor(Date.now() / 1000);
const MODEL = '/v1/models/';

/** The route of a request, or why there is none. `HEAD` is answered like `GET`, without the body. */
export function findRoute(method: string, pathname: string): Route | ApiError {
  const path = pathname.startsWith(MODEL) && pathname.length > MODEL.length ? '/v1/models/:model' : pathname;
  const there = ROUTES.filter((route) => route.path === path);
  const wanted = method === 'HEAD' ? 'GET' : method;
  const route = there.find((candidate) => candidate.method === wanted);
  if (route) return route;
  if (there.length === 0) return new ApiError(404, `Invalid URL (${method} ${pathname})`);
  if (method === 'OPTIONS') return PREFLIGHT;
  const allow = there.map((candidate) => candidate.method).join(', ');
  return new ApiError(405, `${pathname} takes ${allow}, not ${method}.`, { headers: { allow } });
}

function listModels({ service, exchange }: Call): void {
  sendJson(exchange.response, 200, { object: 'list', data: [describeModel(service.model, CREATED)] });
}

function showModel({ service, exchange, pathname }: Call): void {
  service.checkModel(decode(pathname.slice(MODEL.length)));
  sendJson(exchange.response, 200, describeModel(service.model, CREATED));
}

function decode(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

async function sendMetrics({ service, exchange: { response } }: Call): Promise<void> {
  const text = await service.metrics.text();
  response.writeHead(200, { 'content-type': service.metrics.contentType });
  response.end(text);
}

/** 200 while requests are taken; 503 while the server shuts down, or when its engine does not answer. */
async function sendHealth({ service, exchange, draining }: Call): Promise<void> {
  const stats = await service.model.engine.stats().catch(() => undefined);
  const status = stats === undefined ? 'failed' : draining ? 'draining' : 'ok';
  const { running = 0, waiting = 0 } = stats ?? {};
  sendJson(exchange.response, status === 'ok' ? 200 : 503, { status, running, waiting });
}
